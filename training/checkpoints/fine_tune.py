"""A new run that starts from trained weights (--init_from): a checkpoint's, or an exported generator's."""

from collections.abc import Iterator

from torch import nn

from models.conditional import ConditionalBatchNorm, Embedding
from settings.command_line import as_flags
from settings.config import Config, to_flag
from utils.errors import UserError

from ..state import State
from .checkpoint import KEYS, SHAPING, Checkpoint, load, load_weights, other_classes


def source(config: Config) -> Checkpoint:
    """What the file holds that config.init_from names. UserError where it does not fit."""
    assert config.init_from
    found = load(config.init_from, tuple(KEYS))
    names = [name for name in ["model", *SHAPING] if not (found.exported and name == "d_norm")]
    theirs, own = ({name: getattr(each, name) for name in names} for each in (found.config, config))
    if wrong := [name for name in names if theirs[name] != own[name]]:
        told = "; ".join(f"{name} {to_flag(theirs[name])}, and this run {to_flag(own[name])}" for name in wrong)
        typed = ", ".join(" ".join(as_flags({name: theirs[name]})) for name in wrong)
        raise UserError(f"--init_from {found.path} does not fit: it has {told}. Give this run what it has: {typed}")
    return found


def start_from(state: State, config: Config) -> Iterator[str]:
    """Take over the weights that config.init_from names, and yield sentences about what was taken and what is new.

    Optimizers, step and random numbers are those of a new run. Where the classes are others, the tables of labels are
    new. UserError where the weights do not fit.
    """
    given = source(config)
    changed = given.classes is not None and state.classes is not None and given.classes.names != state.classes.names
    told = other_classes(given.classes, state.classes)
    if changed and config.conditional == "concat":
        raise UserError(
            f"--init_from {given.path} was trained on other classes ({told}), and by concat the classes are inputs of "
            "both networks: only the same fit"
        )
    found = {name: given.weights(name) for name in state.networks}
    if "EMA" in found:
        found["EMA"] = found["EMA"] or found["G"]
    taken = {name: weights for name, weights in found.items() if weights is not None}
    for name, weights in taken.items():
        network = state.networks[name]
        own = network.state_dict()
        new = {table: own[table] for table in tables(network)} if changed else {}
        load_weights(network, weights | new, given.path, name)
    *first, last = taken
    yield f"from {', '.join(first)} and {last} of {given.path}, at its step {given.step:,}"
    if "D" not in taken:
        yield "D is new: an exported file has none"
    if changed and given.classes and state.classes:
        counts = f"{len(given.classes.names)} classes before, {len(state.classes.names)} now"
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
