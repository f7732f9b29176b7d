"""A study: methods x settings x seeds, after figures 1 and 2 of Miyato et al. 2018. Imports no torch by itself."""

import difflib
import math
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from settings.config import FIELDS, Config, default_run_dir
from settings.layers import check_settings, load_yaml, resolve
from utils.errors import UserError

from .methods import METHODS, METRICS, SETTINGS

GRID: dict[str, Mapping[str, Any]] = {"methods": METHODS, "settings": SETTINGS, "metrics": METRICS}
KEYS = ("base", "methods", "settings", "seeds", "metrics", "weights", "quick", "question", "target_fid")
# What base cannot set: it differs between runs, or follows from something else in the study's file.
RESERVED = ("run_dir", "seed", "d_norm", "regularizer", "lecam_start", "eval_kid", "num_epochs")
QUESTION = "does spectral normalization help?"
# What a resume may change, but not within a study: its scores would no longer compare.
COMPARED = ("num_samples", "protocol", "features", "eval_every")


# ---- What is to run ------------------------------------------------------------------------------------------------


class Run(NamedTuple):
    """One run of a study. flags: the settings that make it, as they would be typed."""

    method: str
    setting: str
    seed: int
    flags: dict[str, Any]
    config: Config

    @property
    def name(self) -> str:
        return f"{self.method}_{self.setting}_seed{self.seed}"

    @property
    def run_dir(self) -> Path:
        return Path(self.config.run_dir or default_run_dir(self.config))


class Study(NamedTuple):
    """A grid of runs in a folder. base: what all runs share; table: what each of the settings is, by its name."""

    name: str
    folder: Path
    base: dict[str, Any]
    methods: tuple[str, ...]
    settings: tuple[str, ...]
    seeds: tuple[int, ...]
    metrics: tuple[str, ...]
    table: Mapping[str, dict[str, Any]] = SETTINGS
    question: str = QUESTION
    weights: Mapping[str, float] = {}  # of regularizers, where not the literature's
    target_fid: float | None = None  # to which seconds are counted (default: what half of the runs reach)

    def runs(self) -> list[Run]:
        """All runs, seed by seed, so that what is cut short has whole comparisons."""
        grid = [(seed, setting, method) for seed in self.seeds for setting in self.settings for method in self.methods]
        return [self.run(method, setting, seed) for seed, setting, method in grid]

    def run(self, method: str, setting: str, seed: int) -> Run:
        flags = {"regularizer": ("none",)} | self.base | self.table[setting] | METHODS[method].settings | {"seed": seed}
        (regularizer,) = flags["regularizer"]  # no method has more
        if regularizer in self.weights:
            flags["regularizer_weight"] = (self.weights[regularizer],)
        flags["eval_kid"] = "kid" in self.metrics
        flags["run_dir"] = str(self.folder / f"{method}_{setting}_seed{seed}")
        try:
            config, _ = resolve(flags)
        except UserError as error:
            raise UserError(f"{self.name}, method {method}, setting {setting}: {error}") from error
        return Run(method, setting, seed, flags, config)

    def with_all_of(self, other: "Study") -> "Study":
        """This study with the methods, settings and seeds of another one too, and its metrics."""
        return self._replace(
            metrics=other.metrics,
            methods=tuple(name for name in METHODS if name in self.methods + other.methods),
            settings=tuple(name for name in self.table if name in self.settings + other.settings),
            seeds=tuple(sorted({*self.seeds, *other.seeds})),
        )

    def only(self, runs: Sequence[Run]) -> "Study":
        """This study without the methods, settings and seeds that none of these runs has."""
        return self._replace(
            methods=tuple(name for name in self.methods if any(run.method == name for run in runs)),
            settings=tuple(name for name in self.settings if any(run.setting == name for run in runs)),
            seeds=tuple(seed for seed in self.seeds if any(run.seed == seed for run in runs)),
        )


def load_study(
    path: str | Path,
    folder: str | Path | None = None,
    quick: bool = False,
    overrides: dict[str, Any] | None = None,
    **chosen: Sequence[Any] | None,
) -> Study:
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
        grid: dict[str, Any] = {key: content.get(key) for key in ("methods", "settings", "seeds", "metrics")}
        table = _settings_of(grid["settings"])
        grid["settings"] = grid["settings"] if table is SETTINGS else list(table)
        if quick:
            part = content.get("quick")
            if not isinstance(part, dict):
                raise ValueError("it has no part named quick")
            for key in part:
                _one_of(key, grid, "key of quick")
            grid |= part
        grid |= {key: value for key, value in chosen.items() if value is not None}
        choices = GRID | {"settings": table}
        grid = {key: _checked(key, values, choices.get(key, ())) for key, values in grid.items()}
        base = check_settings(content.get("base") or {}) | (overrides or {})
        weights = _weights_of(content.get("weights") or {})
        target = _target_of(content.get("target_fid"))
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    reserved = (*RESERVED, *SETTINGS["A"]) if table is SETTINGS else RESERVED  # settings of its own go before base
    if taken := [key for key in base if key in reserved]:
        raise UserError(f"{path}: base cannot set {taken[0]}, which the study itself decides")
    if empty := [key for key, value in base.items() if value is None]:
        raise UserError(f"{path}: base has no value for {empty[0]}; leave it out")
    if not base.get("eval_every") or not base.get("audit_every"):
        raise UserError(f"{path}: base needs eval_every and audit_every: the report draws what is measured in training")
    name = Path(path).stem
    question = str(content.get("question", QUESTION))
    return Study(
        name,
        Path(folder or Path("runs") / "studies" / name),
        base,
        **grid,
        table=table,
        question=question,
        weights=weights,
        target_fid=target,
    )


def _settings_of(own: Any) -> Mapping[str, dict[str, Any]]:
    """What the settings of a study's file are: those of the paper's table 1, or its own, {name: settings of a run}."""
    if not isinstance(own, dict):
        return SETTINGS
    for name, settings in own.items():
        if not (isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9-]+", name)):
            raise ValueError(f"a setting is named in letters, digits and hyphens, not {str(name)[:100]!r}")
        if taken := [key for key in check_settings(settings or {}) if key in RESERVED]:
            raise ValueError(f"setting {name} cannot set {taken[0]}, which the study itself decides")
    return {name: check_settings(settings or {}) for name, settings in own.items()}


def _weights_of(weights: Any) -> dict[str, float]:
    """The weights of the methods' regularizers in a study's file, checked."""
    if not isinstance(weights, dict):
        raise ValueError("weights are `regularizer: number` lines")
    used = sorted({name for method in METHODS.values() for name in method.settings.get("regularizer", ())})
    for regularizer, weight in weights.items():
        _one_of(regularizer, used, "regularizer of a method")
        if type(weight) not in (int, float):
            raise ValueError(f"the weight of {regularizer} must be a number, not {str(weight)[:100]}")
        check_settings({"regularizer_weight": weight})
    return weights


def _target_of(value: Any) -> float | None:
    """The FID to which a study's file has the seconds counted, checked."""
    if value is not None and not (type(value) in (int, float) and 0 < value < math.inf):
        raise ValueError(f"target_fid must be a number above 0, not {str(value)[:100]}")
    return value


def _one_of(value: Any, choices: Collection[str], what: str) -> None:
    if value not in choices:
        close = difflib.get_close_matches(str(value)[:100], map(str, choices), 1)
        hint = f"did you mean {close[0]}?" if close else "choices: " + ", ".join(map(str, choices))
        raise ValueError(f"unknown {what} {str(value)[:100]!r}; {hint}")


def _checked(key: str, values: Any, choices: Collection[str]) -> tuple[Any, ...]:
    """The values of one side of the grid as a tuple, checked; choices: the names that they are of."""
    if not isinstance(values, (list, tuple)) or not values:
        raise ValueError(f"{key} must be a list of one or more")
    for value in values:
        if key == "seeds":
            if type(value) is not int or not 0 <= value < 2**32:
                raise ValueError(f"seeds are whole numbers from 0, not {str(value)[:100]}")
        elif not isinstance(value, str):
            raise ValueError(f"{key} are names, not {str(value)[:100]}")
        else:
            _one_of(value, choices, key.removesuffix("s"))
    if len(set(values)) != len(values):
        raise ValueError(f"{key} names one twice")
    return tuple(values)


def claim(study: Study, write: bool = True) -> None:
    """Keep what all runs share in the folder's study.yaml. UserError where that is another study's.

    write: False where it is only to be compared. A file that is damaged is written anew.
    """
    path = study.folder / "study.yaml"
    own = {key: list(value) if isinstance(value, tuple) else value for key, value in study.base.items()}
    try:
        before = {key: value for key, value in load_yaml(path).items() if key in FIELDS}
    except (UserError, AttributeError):  # absent or damaged
        before = None
    if before is not None:
        changes = {key: (before.get(key), own.get(key)) for key in sorted({*before, *own})}
        refuse_other(study.folder, {key: pair for key, pair in changes.items() if pair[0] != pair[1]})
    if write and before != own:
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")  # printed commands may start at the same time
        temporary.write_text(yaml.safe_dump(own, sort_keys=False), encoding="utf-8")
        os.replace(temporary, path)


def refuse_other(folder: Path, changes: dict[str, tuple[Any, Any]]) -> None:
    """Raise UserError where {setting: (its value there, its value here)} make a folder another study's."""
    for name, (there, here) in changes.items():
        if name in COMPARED or not FIELDS[name].metadata["resumable"]:
            raise UserError(
                f"{folder} belongs to another study: its {name} is {there}, and this one's {here}. Choose another "
                "folder with --out"
            )


def seeds_of(folder: Path) -> tuple[int, ...]:
    """The seeds that the runs in a study's folder have."""
    names = [path.name.rpartition("_seed")[2] for path in folder.glob("*_seed*") if path.is_dir()]
    return tuple(int(name) for name in names if name.isdecimal())
