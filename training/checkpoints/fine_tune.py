"""A new run that starts from trained weights (--init_from): a checkpoint's, or an exported generator's."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from models.conditional import ConditionalBatchNorm, Embedding
from settings.config import Config, to_flag
from utils.errors import UserError

from ..state import State
from . import checkpoint
from .run_dir import latest

# What has to be alike for the weights of both networks to fit, and of D besides.
SHAPING = ["model", "image_size", "channels", "z_dim", "base_channels", "arch_variant", "g_sn", "conditional"]
SHAPING += ["attention", "groups"]
OF_D = ["d_norm"]


def source(config: Config) -> tuple[Path, dict[str, Any], Config]:
    """The file that config.init_from names, what it holds, and its configuration. UserError where it does not fit."""
    assert config.init_from
    given = Path(config.init_from)
    path = latest(given) if given.is_dir() else given
    content = checkpoint.load(path, (checkpoint.FORMAT, checkpoint.EXPORT_FORMAT))
    other = checkpoint.config_of(content, path)
    names = SHAPING + (OF_D if "D" in content else [])
    wrong = [name for name in names if getattr(other, name) != getattr(config, name)]
    if wrong:
        told = (
            f"{name} {to_flag(getattr(other, name))}, and this run {to_flag(getattr(config, name))}" for name in wrong
        )
        way = f"Give this run what it has: {_typed(other, wrong)}"
        raise UserError(f"--init_from {path} does not fit: it has {'; '.join(told)}. {way}")
    return path, content, other


def _typed(config: Config, names: list[str]) -> str:
    """What has to be typed for a run to have these settings as config has them."""
    words = []
    for name in names:
        value = getattr(config, name)
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no_{name}")
        else:
            words.append(f"no --{name}" if value is None else f"--{name} {to_flag(value)}")
    return ", ".join(words)


def check(config: Config) -> None:
    """Raise UserError where a new run cannot start from what config.init_from names, as far as no data are needed."""
    if config.init_from and not config.resume:
        source(config)


def start_from(state: State, config: Config) -> Iterator[str]:
    """Take over the weights that config.init_from names, and yield sentences about what was taken and what is new.

    Optimizers, step and random numbers are those of a new run. Where the classes are others, the tables of labels are
    new. UserError where the weights do not fit.
    """
    path, content, other = source(config)
    before = checkpoint.classes_of(content, other, path)
    changed = before is not None and state.classes is not None and before.names != state.classes.names
    if changed and config.conditional == "concat":
        told = checkpoint.other_classes(before, state.classes)
        raise UserError(
            f"--init_from {path} was trained on other classes ({told}), and by concat the classes are inputs of both "
            "networks: only the same fit"
        )
    found: dict[str, Any] = {"G": content["G"], "D": content.get("D"), "EMA": content.get("ema")}
    if found["EMA"] is None or content["format"] == checkpoint.EXPORT_FORMAT:
        found["EMA"] = content["G"]
    networks = {"G": state.G, "D": state.D} | ({"EMA": state.ema.G} if state.ema else {})
    taken = [name for name in networks if found[name] is not None]
    for name in taken:
        own = networks[name].state_dict()
        new = {table: own[table] for table in tables(networks[name])} if changed else {}
        checkpoint.load_weights(networks[name], found[name] | new, path, name)
    yield f"from {', '.join(taken[:-1])} and {taken[-1]} of {path}, at its step {content['step']:,}"
    if "D" not in taken:
        yield "D is new: an exported file has none"
    if changed and before and state.classes:
        told = checkpoint.other_classes(before, state.classes)
        counts = f"{len(before.names)} classes before, {len(state.classes.names)} now"
        yield f"the tables of labels are new: {counts} ({told})"


def tables(network: nn.Module) -> set[str]:
    """The names of a network's weights, and what their normalizations keep, that have a row for each class."""
    found = set()
    for name, module in network.named_modules():
        if isinstance(module, ConditionalBatchNorm):  # its statistics are of all classes
            found |= {f"{name}.{part}" for part, _ in module.named_parameters(recurse=False)}
        elif isinstance(module, Embedding) or name == "classes.head":
            found |= {f"{name}.{part}" for part in module.state_dict()}
    return found
