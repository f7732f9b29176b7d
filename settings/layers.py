"""Settings from flags and YAML files, checked in the same way and layered to a Config.

Precedence: default < preset (configs/DATASET_MODEL.yaml) < --config < flag. Imports no torch, so that --help is quick.
"""

import collections
import contextlib
import operator
import os
import re
import reprlib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from utils.errors import UserError

from .config import FIELDS, Config
from .rules import check_combinations
from .words import folded, suggestion

YAML_LIMIT = 2**20  # bytes
CONFIGS_DIR = Path(__file__).resolve().parent.parent / "configs"
TYPES = typing.get_type_hints(Config)
ARTICLES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
NOTHING = ("none", "null", "no", "off", "false")  # other spellings of none
SWITCHES = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
BOUNDS = {
    "low": ("at least", operator.ge),
    "above": ("more than", operator.gt),
    "high": ("at most", operator.le),
    "below": ("less than", operator.lt),
}


def element_type(name: str) -> tuple[Any, bool, int | None]:
    """Return (scalar type, optional, count): how many values a field takes, 0 for any number, None for a scalar."""
    hint = TYPES[name]
    kind, *others = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    optional, parts = types.NoneType in others, typing.get_args(kind)
    if not parts:
        return kind, optional, None
    return parts[0], optional, 0 if parts[-1] is Ellipsis else len(parts)


def checked(name: str, value: Any) -> Any:
    """Return a value for the setting `name` in its exact type. Raises ValueError, with the choices, if it is bad."""
    kind, optional, count = element_type(name)
    words = () if FIELDS[name].metadata["path"] else ("none",)  # a file may have this name
    if optional and (value is None or value is False or _meant(value, str, words) in words):
        return None
    if count is None:
        return _checked_scalar(name, value, kind)
    values = []
    for item in value if isinstance(value, (list, tuple)) else [value]:
        values += re.split(r"[\s,]+", item.strip(", ")) if isinstance(item, str) else [item]
    if count and len(values) != count:
        raise ValueError(f"{name} takes {count} values, not {len(values)}")
    if not values:
        raise ValueError(f"{name} takes at least one value")
    return tuple(_checked_scalar(name, item, kind) for item in values)


def _checked_scalar(name: str, value: Any, kind: Any) -> Any:
    meta = FIELDS[name].metadata
    choices, words = meta["choices"] or (), meta["words"]
    value = _meant(value, kind, (*choices, *words))
    if value in words:
        return value
    exact = type(value) is kind or (kind is float and type(value) is int)
    if not exact or (choices and value not in choices):
        wanted = f"one of {', '.join(map(str, choices))}" if choices else " or ".join([ARTICLES[kind], *words])
        raise ValueError(f"{name} must be {wanted}, not {short(value)}{suggestion(value, (*choices, *words))}")
    for key, (told, holds) in BOUNDS.items():
        if kind is not str and meta[key] is not None and not holds(value, meta[key]):  # NaN holds for none
            raise ValueError(f"{name} must be {told} {meta[key]}, not {short(value)}")
    return os.path.expanduser(value) if meta["path"] else kind(value)


def _meant(value: Any, kind: Any, words: tuple[Any, ...]) -> Any:
    """Convert a value of another type or spelling. Returns one of these words, a number, true or false."""
    text = folded(value) if isinstance(value, str) else ""
    if text in words:
        return text
    if "none" in words and (value is None or value is False or text in NOTHING):
        return "none"
    if text and kind is bool:
        return SWITCHES.get(text, value)
    if text and kind in (int, float):  # YAML reads 1e-4 as text
        with contextlib.suppress(ValueError):
            value = int(value) if value.isdecimal() else float(value)
    whole = kind is int and isinstance(value, float) and value.is_integer()
    return int(value) if whole else value


def short(value: Any) -> str:
    """Return a short repr() for messages. In a file from elsewhere, the repr() of a value can be endless."""
    try:
        return reprlib.repr(value)
    except ValueError:  # a whole number of thousands of digits
        return f"a {type(value).__name__} too long to show"


class _Loader(yaml.SafeLoader):
    """YAML's plain types, without duplicate names and aliases: a few lines of aliases expand to gigabytes."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        names = collections.Counter(str(key.value) for key, _ in node.value)
        if len(names) < len(node.value):
            raise yaml.YAMLError(f"{names.most_common(1)[0][0]} is in it twice; keep one of the two")
        return node

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias (*name), which settings do not allow")
        return super().compose_node(parent, index)


def load_yaml(path: str | Path) -> Any:
    """Return the content of a YAML file of plain values, from any source. Raises UserError if it cannot be read."""
    try:
        if os.path.getsize(path) > YAML_LIMIT:
            raise ValueError("it is too long for a file of settings")
        return yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise UserError(f"cannot read the configuration {path}: {error.strerror}") from error
    except Exception as error:  # PyYAML raises ValueError, AttributeError and more for a bad date, int or float
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())[:300]}") from error


def configuration(path: str | Path) -> Path:
    """Find the file that --config names, in the working folder or the project. Raises UserError if there is none."""
    places = [Path(path), CONFIGS_DIR.parent / path]
    own = [file.relative_to(CONFIGS_DIR.parent) for file in CONFIGS_DIR.rglob("*.yaml")]
    for place in filter(Path.exists, places):
        return place
    raise UserError(f"there is no {path}{suggestion(path, [*own, *places[0].parent.glob('*.y*ml')])}")


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file of settings into a dict of checked values.

    The `record` in a run's config.yaml (training/checkpoints/record.py) is left out. Raises UserError if any is bad.
    """
    content = load_yaml(path)
    if isinstance(content, dict):
        content = {key: value for key, value in content.items() if key != "record"}
    try:
        return check_settings({} if content is None else content)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def check_settings(values: Any) -> dict[str, Any]:
    """Check a dict of settings as flags are checked. Raises ValueError if a key is unknown or a value is bad."""
    if not isinstance(values, dict):
        raise ValueError(f"settings are `name: value` lines, not a {type(values).__name__}")
    names = [name for name in FIELDS if name not in ("config", "resume")]
    for key in values:
        if key in ("config", "resume"):
            raise ValueError(f"{key} is a flag only: a file of settings cannot name another")
        if key not in names:
            hint = suggestion(key, names) or "; python main.py --help lists all settings"
            raise ValueError(f"unknown setting {short(key)}{hint}")
    read = {key: checked(key, value) for key, value in values.items()}
    if read.get("num_epochs") is not None and "total_steps" in read:
        raise ValueError("total_steps and num_epochs exclude each other")
    return read


def resolve(flags: dict[str, Any]) -> tuple[Config, Path | None]:
    """Lay the flags over --config over the preset over the defaults.

    Returns (Config, path of the preset or None). Raises UserError if settings cannot be combined.
    """
    experiment = read_yaml(configuration(flags["config"])) if "config" in flags else {}
    chosen = {"dataset": FIELDS["dataset"].default, **experiment, **flags}
    preset = preset_of(chosen)
    nearest = preset or preset_of({"dataset": chosen["dataset"]})
    first = read_yaml(nearest) if nearest else {}
    if not preset:  # only what belongs to the data set, not to a model
        first = {name: value for name, value in first.items() if name in ("image_size", "channels")}
    settings: dict[str, Any] = {}
    for layer in (first, experiment, flags):
        _check_rates(settings, layer)
        settings = overlay(settings, layer)
    config = Config(**settings)
    check_combinations(config)
    return config, preset


def preset_of(chosen: Mapping[str, Any]) -> Path | None:
    """Return the preset of the chosen data set, model and size, or None. Raises UserError if a size has no preset."""
    words = [chosen.get(key, FIELDS[key].default) for key in ("dataset", "model", "size")]
    preset = CONFIGS_DIR / f"{'_'.join(filter(None, words))}.yaml"
    if preset.exists():
        return preset
    if size := chosen.get("size"):
        there = ", ".join(sorted(path.name for path in CONFIGS_DIR.glob(f"*_{size}.yaml")))
        raise UserError(f"size {size}: there is no configs/{preset.name}; presets of this size: {there}")
    return None


def usual_steps(config: Config) -> int | None:
    """Return the fewest steps of this model's presets for this data set, of any size, or None without presets."""
    paths = (CONFIGS_DIR / f"{config.dataset}_{config.model}{size}.yaml" for size in ("", "_small"))
    return min((read_yaml(path)["total_steps"] for path in paths if path.exists()), default=None)


def overlay(settings: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    """Lay a later layer over settings, without those that it replaces or resets (see config.setting())."""
    gone: set[str] = set()
    for key, value in layer.items():
        meta = FIELDS[key].metadata
        if value is not None:
            gone.update(meta["replaces"])
        if value != settings.get(key):
            gone.update(other for other, kept in meta["resets"] if not set(kept) & set(value))
    return {key: value for key, value in settings.items() if key not in gone} | dict(layer)


def _check_rates(settings: dict[str, Any], layer: dict[str, Any]) -> None:
    """Raise UserError if a layer replaces lr_cosine without giving both learning rates."""
    given = [name for name in FIELDS["lr_cosine"].metadata["replaces"] if layer.get(name) is not None]
    left = [name for name in ("lr_G", "lr_D") if name not in given]
    if settings.get("lr_cosine") and not layer.get("lr_cosine") and given and left:
        too = " and ".join(left)
        raise UserError(f"{given[0]} replaces lr_cosine, which moves both learning rates: give {too} too")
