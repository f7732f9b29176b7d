"""A study: methods x settings x seeds, after figures 1 and 2 of Miyato et al. 2018. Does not import torch."""

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from settings.config import FIELDS, Config, default_run_dir
from settings.layers import check_settings, configuration, load_yaml, resolve, short
from settings.words import suggestion
from utils.errors import UserError, refuse_if

from .methods import METHODS, METRICS, SETTINGS

GRID: dict[str, Mapping[str, Any]] = {"methods": METHODS, "settings": SETTINGS, "metrics": METRICS}
SIDES = (*GRID, "seeds")
KEYS = ("base", *SIDES, "weights", "quick", "question", "target_fid")
# Settings that base cannot have: they differ between runs, or follow from other keys of the study's file.
RESERVED = ("run_dir", "seed", "d_norm", "regularizer", "lecam_start", "eval_kid", "num_epochs")
QUESTION = "does spectral normalization help?"
# Settings that a resume may change, but a study may not, since its scores could no longer be compared.
COMPARED = ("num_samples", "protocol", "features", "eval_every")


# ---- The runs ------------------------------------------------------------------------------------------------------


class Run(NamedTuple):
    """One run of a study. flags: its settings, as they would be typed."""

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
    """A grid of runs in a folder. base: settings of all runs. table: {name of a setting: settings of a run}."""

    name: str
    folder: Path
    base: dict[str, Any]
    methods: tuple[str, ...]
    settings: tuple[str, ...]
    seeds: tuple[int, ...]
    metrics: tuple[str, ...]
    table: Mapping[str, dict[str, Any]] = SETTINGS
    question: str = QUESTION
    weights: Mapping[str, float] = {}  # of regularizers, if not the literature's
    target_fid: float | None = None  # to which seconds are counted (default: the FID that half of the runs reach)

    def runs(self) -> list[Run]:
        """All runs, seed by seed, so that an interrupted study has complete comparisons."""
        grid = [(seed, setting, method) for seed in self.seeds for setting in self.settings for method in self.methods]
        return [self.run(method, setting, seed) for seed, setting, method in grid]

    def run(self, method: str, setting: str, seed: int) -> Run:
        flags = {"regularizer": ("none",)} | self.base | self.table[setting] | METHODS[method].settings | {"seed": seed}
        (regularizer,) = flags["regularizer"]  # every method has exactly one
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
        """This study plus another one's methods, settings and seeds, with the other's metrics."""
        return self._replace(
            metrics=other.metrics,
            methods=tuple(name for name in METHODS if name in self.methods + other.methods),
            settings=tuple(name for name in self.table if name in self.settings + other.settings),
            seeds=tuple(sorted({*self.seeds, *other.seeds})),
        )

    def only(self, runs: Sequence[Run]) -> "Study":
        """This study with only those methods, settings and seeds that some of these runs have."""
        methods, settings, seeds = ({getattr(run, side) for run in runs} for side in ("method", "setting", "seed"))
        return self._replace(
            methods=tuple(name for name in self.methods if name in methods),
            settings=tuple(name for name in self.settings if name in settings),
            seeds=tuple(seed for seed in self.seeds if seed in seeds),
        )


# ---- Its file ------------------------------------------------------------------------------------------------------


def load_study(
    path: str | Path,
    folder: str | Path | None = None,
    quick: bool = False,
    overrides: dict[str, Any] | None = None,
    **chosen: Sequence[Any] | None,
) -> Study:
    """Read a study's YAML file.

    folder: of its runs (default: runs/studies/NAME). quick: use the part of the grid under `quick`. overrides: settings
    of all runs, which override the file's. chosen: methods, settings, seeds or metrics that replace the file's, if not
    None. Raises UserError if the file cannot be used, with the key and the choices.
    """
    content, name = load_yaml(configuration(path)), Path(path).stem
    try:
        refuse_if(not isinstance(content, dict), "a study has the keys " + ", ".join(KEYS))
        _check_names(content, KEYS, "key")
        own, target = content.get("settings"), content.get("target_fid")
        table = _own_settings(own) if isinstance(own, dict) else SETTINGS
        sides = {key: content.get(key) for key in SIDES} | ({} if table is SETTINGS else {"settings": [*table]})
        if quick:
            refuse_if(not isinstance(content.get("quick"), dict), "it has no key quick: leave out --quick")
            _check_names(content["quick"], SIDES, "key of quick")
            sides |= content["quick"]
        sides |= {key: values for key, values in chosen.items() if values is not None}
        above_0 = type(target) in (int, float) and 0 < target < math.inf
        refuse_if(target is not None and not above_0, f"target_fid must be a number above 0, not {short(target)}")
        return Study(
            name=name,
            folder=Path(folder or Path("runs") / "studies" / name),
            base=_base(check_settings(content.get("base") or {}) | (overrides or {}), table),
            **{key: _side(key, sides[key], table) for key in SIDES},
            table=table,
            question=str(content.get("question", QUESTION)),
            weights=_weights(content.get("weights") or {}),
            target_fid=target,
        )
    except (ValueError, UserError) as error:
        raise UserError(f"{path}: {error}") from error


def _check_names(names: Iterable[Any], choices: Iterable[str], what: str) -> None:
    known = [*choices]
    for name in names:
        hint = suggestion(name, known) or f"; choices: {', '.join(known)}"
        refuse_if(name not in known, f"unknown {what} {short(name)}{hint}")


def _own_settings(own: dict[Any, Any]) -> dict[str, dict[str, Any]]:
    """A study's own settings, which replace the paper's: {name: settings of a run}."""
    table = {name: check_settings(settings or {}) for name, settings in own.items()}
    for name, settings in table.items():
        named = isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9-]+", name)
        refuse_if(not named, f"the name of a setting may have letters, digits and hyphens, not {short(name)}")
        decided = sorted({*settings} & {*RESERVED})
        refuse_if(decided, f"setting {name} cannot set {', '.join(decided)}, which the study decides")
    return table


def _side(key: str, values: Any, table: Mapping[str, Any]) -> tuple[Any, ...]:
    """Check one side of the grid: a list of different values. table: the settings to choose from."""
    refuse_if(not isinstance(values, (list, tuple)) or not values, f"{key} must be a list with one entry or more")
    if key == "seeds":
        for seed in values:
            check_settings({"seed": seed})
    else:
        _check_names(values, (GRID | {"settings": table})[key], key.removesuffix("s"))
    refuse_if(len({*values}) < len(values), f"{key} has an entry twice")
    return tuple(values)


def _base(base: dict[str, Any], table: Mapping[str, Any]) -> dict[str, Any]:
    """Check the settings of all runs. They cannot include those of the paper's table 1, if the study uses it."""
    decided = sorted({*base} & {*RESERVED, *(SETTINGS["A"] if table is SETTINGS else ())})
    refuse_if(decided, f"base cannot set {', '.join(decided)}, which the study decides")
    empty = [key for key, value in base.items() if value is None]
    refuse_if(empty, f"base has no value for {', '.join(empty)}; leave it out")
    measured = base.get("eval_every") and base.get("audit_every")
    refuse_if(not measured, "base needs eval_every and audit_every above 0: the report draws both over training")
    return base


def _weights(weights: Any) -> dict[str, float]:
    """Check the weights of the methods' regularizers that replace the literature's."""
    refuse_if(not isinstance(weights, dict), "weights must be lines such as `r1: 1.0`")
    used = sorted({name for method in METHODS.values() for name in method.settings.get("regularizer", ())})
    _check_names(weights, used, "regularizer of a method")
    for weight in weights.values():
        check_settings({"regularizer_weight": [weight]})
    return weights


# ---- Its folder ----------------------------------------------------------------------------------------------------


def claim(study: Study, write: bool = True) -> None:
    """Write the settings of all runs to the folder's study.yaml, also if that is damaged. write: False only compares.

    Raises UserError if the folder belongs to another study.
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
    """Raise UserError if changes {setting: (value there, value here)} show that a folder is another study's."""
    for name, (there, here) in changes.items():
        told = f"{folder} belongs to another study: its {name} is {there}, but this one's is {here}"
        other = name in COMPARED or not FIELDS[name].metadata["resumable"]
        refuse_if(other, f"{told}. Choose another folder with --out")


def seeds_of(folder: Path) -> tuple[int, ...]:
    """The seeds of the runs in a study's folder."""
    names = [path.name.rpartition("_seed")[2] for path in folder.glob("*_seed*") if path.is_dir()]
    return tuple(int(name) for name in names if name.isdecimal())
