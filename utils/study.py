"""A study: methods x settings x seeds, each a usual run directory, after figures 1 and 2 of Miyato et al. 2018.

Imports no torch. What a run came to is read from its directory alone, so it does not matter which machine trained it.
"""

import difflib
import json
import shutil
from pathlib import Path
from typing import NamedTuple

from .config import FIELDS, Config, check_settings, differences, load_yaml, read_yaml, resolve
from .errors import UserError


class Method(NamedTuple):
    """What constrains D: its name in words, and the settings that it consists of, which go before a study's own."""

    label: str
    settings: dict


# The paper's comparison (section 4.1), and beside it R1 and spectral norm under batch norm.
METHODS = {
    "none": Method("nothing", {"d_norm": ("none",)}),
    "batch": Method("batch norm", {"d_norm": ("batch",)}),
    "layer": Method("layer norm", {"d_norm": ("layer",)}),
    "weight": Method("weight norm", {"d_norm": ("weight",)}),
    "weight_clipping": Method(
        "weight clipping (WGAN)", {"d_norm": ("none",), "loss": "wasserstein", "regularizer": "weight_clipping"}
    ),
    "wgan_gp": Method("WGAN-GP", {"d_norm": ("none",), "loss": "wasserstein", "regularizer": "gradient_penalty"}),
    "gan_gp": Method("GAN-GP", {"d_norm": ("none",), "regularizer": "gradient_penalty"}),
    "orthonormal": Method("orthonormal", {"d_norm": ("none",), "regularizer": "orthonormal"}),
    "r1": Method("R1", {"d_norm": ("none",), "regularizer": "r1"}),
    "spectral": Method("spectral norm", {"d_norm": ("spectral",)}),
    "spectral_batch": Method("spectral + batch norm", {"d_norm": ("spectral", "batch")}),
}


def _table_1(lr, beta1, beta2, n_dis):
    return {"lr_G": lr, "lr_D": lr, "betas": (beta1, beta2), "n_dis": n_dis}


SETTINGS = {  # table 1 of the paper
    "A": _table_1(1e-4, 0.5, 0.9, 5),
    "B": _table_1(1e-4, 0.5, 0.999, 1),
    "C": _table_1(2e-4, 0.5, 0.999, 1),
    "D": _table_1(1e-3, 0.5, 0.9, 5),
    "E": _table_1(1e-3, 0.5, 0.999, 5),
    "F": _table_1(1e-3, 0.9, 0.999, 5),
}
METRICS = {  # scores: name in words, and whether more is better
    "inception_score": ("Inception Score", True),
    "fid": ("FID", False),
    "kid": ("KID", False),
}
GRID = {"methods": METHODS, "settings": SETTINGS, "metrics": METRICS}
KEYS = ("base", "methods", "settings", "seeds", "metrics", "quick")
RESERVED = ("run_dir", "seed", *_table_1(1, 1, 1, 1), "d_norm", "regularizer")  # the grid's own


# ---- What is to run ------------------------------------------------------------------------------------------------


class Run(NamedTuple):
    """One run of a study. flags: the settings that make it, as they would be typed."""

    method: str
    setting: str
    seed: int
    flags: dict
    config: Config

    @property
    def name(self):
        return f"{self.method}_{self.setting}_seed{self.seed}"

    @property
    def run_dir(self):
        return Path(self.config.run_dir)


class Study(NamedTuple):
    """A grid of runs in a folder. base: the settings that all runs share."""

    name: str
    folder: Path
    base: dict
    methods: tuple[str, ...]
    settings: tuple[str, ...]
    seeds: tuple[int, ...]
    metrics: tuple[str, ...]

    def runs(self):
        """All runs, seed by seed, so that what is cut short has whole comparisons."""
        grid = [(seed, setting, method) for seed in self.seeds for setting in self.settings for method in self.methods]
        return [self.run(method, setting, seed) for seed, setting, method in grid]

    def run(self, method, setting, seed):
        flags = self.base | SETTINGS[setting] | METHODS[method].settings | {"seed": seed}
        flags["eval_kid"] = "kid" in self.metrics
        flags["run_dir"] = str(self.folder / f"{method}_{setting}_seed{seed}")
        try:
            config, _ = resolve(flags)
        except UserError as error:
            raise UserError(f"{self.name}, method {method}, setting {setting}: {error}") from error
        return Run(method, setting, seed, flags, config)


def load_study(path, folder=None, quick=False, overrides=None, **chosen):
    """Read a study's YAML. UserError names the file, the key and the choices.

    folder: where its runs are kept (default: runs/studies/NAME). quick: the part of the grid under `quick`.
    overrides: settings of all runs, before the file's. chosen: methods, settings, seeds or metrics in the place of the
    file's, where not None.
    """
    content = load_yaml(path)
    try:
        if not isinstance(content, dict):
            raise ValueError("a study has the keys " + ", ".join(KEYS))
        for key in content:
            _one_of(key, KEYS, "key")
        grid = {key: content.get(key) for key in ("methods", "settings", "seeds", "metrics")}
        if quick:
            part = content.get("quick")
            if not isinstance(part, dict):
                raise ValueError("it has no part named quick")
            for key in part:
                _one_of(key, grid, "key of quick")
            grid |= part
        grid |= {key: value for key, value in chosen.items() if value is not None}
        grid = {key: _checked(key, values) for key, values in grid.items()}
        base = check_settings(content.get("base") or {}) | (overrides or {})
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    if taken := [key for key in base if key in RESERVED]:
        raise UserError(f"{path}: base cannot set {taken[0]}, which differs between the runs of a study")
    if not base.get("eval_every") or not base.get("audit_every"):
        raise UserError(f"{path}: base needs eval_every and audit_every: the report draws what is measured in training")
    name = Path(path).stem
    return Study(name, Path(folder or Path("runs") / "studies" / name), base, **grid)


def _one_of(value, choices, what):
    if value not in choices:
        close = difflib.get_close_matches(str(value)[:100], map(str, choices), 1)
        hint = f"did you mean {close[0]}?" if close else "choices: " + ", ".join(map(str, choices))
        raise ValueError(f"unknown {what} {str(value)[:100]!r}; {hint}")
    return value


def _checked(key, values):
    """The values of one side of the grid as a tuple, checked."""
    if not isinstance(values, (list, tuple)) or not values:
        raise ValueError(f"{key} must be a list of one or more")
    for value in values:
        if key == "seeds":
            if type(value) is not int or not 0 <= value < 2**32:
                raise ValueError(f"seeds are whole numbers from 0, not {str(value)[:100]}")
        elif not isinstance(value, str):
            raise ValueError(f"{key} are names, not {str(value)[:100]}")
        else:
            _one_of(value, GRID[key], key.removesuffix("s") if key != "metrics" else "metric")
    if len(set(values)) != len(values):
        raise ValueError(f"{key} names one twice")
    return tuple(values)


# ---- What it came to -----------------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """What a run came to. state: finished, diverged, failed, unfinished or missing; step: how far it got."""

    state: str
    step: int = 0
    message: str = ""
    evaluation: dict | None = None
    record: tuple[dict, ...] = ()


DONE = ("finished", "diverged")


def outcome(run):
    """What a run came to, by its directory. UserError where that holds another run than the study asks for."""
    path = run.run_dir / "config.yaml"
    failure = failure_path(run)
    failed = failure.read_text(encoding="utf-8").strip() if failure.is_file() else None
    if not path.is_file():
        return Outcome("failed", 0, failed) if failed else Outcome("missing")
    _check_same(run, path)
    record = load_yaml(path).get("record")
    record = tuple(entry for entry in record if isinstance(entry, dict)) if isinstance(record, list) else ()
    step = max([entry["to_step"] for entry in record if type(entry.get("to_step")) is int], default=0)
    if record and "diverged" in record[-1]:
        return Outcome("diverged", step, str(record[-1]["diverged"]), record=record)
    evaluation = _evaluation(run.run_dir / "evaluation.json")
    if evaluation and evaluation["protocol"]["step"] == run.config.total_steps:
        return Outcome("finished", run.config.total_steps, evaluation=evaluation, record=record)
    return Outcome("failed" if failed else "unfinished", step, failed or "", record=record)


def failure_path(run):
    """Where it is written why a run failed, till it is started again."""
    return run.run_dir.parent / "console" / f"{run.name}.failed"


def _check_same(run, path):
    """Raise UserError where the run in this directory is another one: with settings that no resume may change."""
    before = Config(**read_yaml(path))
    changed = {
        name: pair
        for name, pair in differences(before, run.config).items()
        if not FIELDS[name].metadata["resumable"] or name in ("num_samples", "protocol", "features", "eval_every")
    }
    if changed:
        name, (old, new) = next(iter(changed.items()))
        raise UserError(
            f"{run.run_dir} is the run of another study: its {name} is {old}, and this one's {new}. Choose another "
            "folder with --out"
        )


def _evaluation(path):
    """The content of an evaluation.json, or None where there is none that is whole."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return content if type(content["protocol"]["step"]) is int else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def arguments(run):
    """The arguments of main.py that start a run or, where it was cut off, go on with it."""
    flags = run.flags
    if any((run.run_dir / "checkpoints").glob("step_*.pt")):
        flags = {"resume": run.flags["run_dir"]}
        flags |= {name: value for name, value in run.flags.items() if FIELDS[name].metadata["resumable"]}
    words = []
    for name, value in flags.items():
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no_{name}")
        elif value is not None:
            words += [f"--{name}", *(map(str, value) if isinstance(value, tuple) else [str(value)])]
    return words


def clear(run):
    """Delete what is left of a run that ended before its first checkpoint: there is nothing in it to go on with."""
    if run.run_dir.is_dir() and not any((run.run_dir / "checkpoints").glob("step_*.pt*")):
        from .run import locked  # here, since it imports torch

        with locked(run.run_dir):
            shutil.rmtree(run.run_dir)
