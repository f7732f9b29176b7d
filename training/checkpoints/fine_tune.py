"""Fine-tuning (--init_from): a new run that starts from the weights of a checkpoint or exported generator."""

from collections.abc import Iterator

from torch import nn

from models.conditional import ConditionalBatchNorm, Embedding
from settings.command_line import as_flags
from settings.config import Config, to_flag
from utils.errors import UserError

from ..state import State
from .checkpoint import KEYS, SHAPING, Checkpoint, load, load_weights, other_classes


def source(config: Config) -> Checkpoint:
    """Load the file that config.init_from names. Raises UserError if it does not fit this run."""
    assert config.init_from
    found = load(config.init_from, tuple(KEYS))
    names = [name for name in ["model", *SHAPING] if not (found.exported and name == "d_norm")]
    theirs, own = ({name: getattr(each, name) for name in names} for each in (found.config, config))
    if wrong := [name for name in names if theirs[name] != own[name]]:
        told = "; ".join(f"{name} {to_flag(theirs[name])}, but this run {to_flag(own[name])}" for name in wrong)
        typed = ", ".join(" ".join(as_flags({name: theirs[name]})) for name in wrong)
        raise UserError(f"--init_from {found.path} does not fit: it has {told}. Add to this run: {typed}")
    return found


def start_from(state: State, config: Config) -> Iterator[str]:
    """Load the weights that config.init_from names; yield sentences about loaded and new parts.

    Optimizers, step and random numbers are those of a new run. If the classes differ, the tables of labels are new.
    Raises UserError if the weights do not fit.
    """
    given = source(config)
    changed = given.classes is not None and state.classes is not None and given.classes.names != state.classes.names
    told = other_classes(given.classes, state.classes)
    if changed and config.conditional == "concat":
        raise UserError(
            f"--init_from {given.path} was trained on other classes ({told}), but under --conditional concat classes "
            "are inputs of both networks: use the same classes"
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
        yield "D is new: an exported file does not contain one"
    if changed and given.classes and state.classes:
        counts = f"{len(given.classes.names)} classes before, {len(state.classes.names)} now"
        yield f"the tables of labels are new: {counts} ({told})"


def tables(network: nn.Module) -> set[str]:
    """The names of a network's weights and buffers that have one row per class."""
    found = set()
    for name, module in network.named_modules():
        if isinstance(module, ConditionalBatchNorm):  # its running statistics are shared by all classes
            found |= {f"{name}.{part}" for part, _ in module.named_parameters(recurse=False)}
        elif isinstance(module, Embedding) or name == "classes.head":
            found |= {f"{name}.{part}" for part in module.state_dict()}
    return found
