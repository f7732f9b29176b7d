"""A new run that starts from trained weights (--init_from): a checkpoint's, or an exported generator's."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.conditional import ConditionalBatchNorm, Embedding
from utils.config import Config
from utils.errors import UserError

from . import checkpoint
from .run_dir import latest
from .state import State

# What has to be alike for weights to fit; of classes, the label tables alone are made new.
SHAPING = (
    "model",
    "image_size",
    "channels",
    "z_dim",
    "base_channels",
    "arch_variant",
    "g_sn",
    "conditional",
    "attention",
)


def start_from(state: State, config: Config) -> Iterator[str]:
    """Take over the weights that config.init_from names, and yield sentences about what was taken and what is new.

    Optimizers, step and random numbers are those of a new run. UserError where the weights do not fit.
    """
    assert config.init_from
    given = Path(config.init_from)
    path = latest(given) if given.is_dir() else given
    content = checkpoint.load(path, (checkpoint.FORMAT, checkpoint.EXPORT_FORMAT))
    refuse_others(config, checkpoint.config_of(content, path), path)
    found: dict[str, Any] = {"G": content["G"], "D": content.get("D"), "EMA": content.get("ema")}
    if found["EMA"] is None or content["format"] == checkpoint.EXPORT_FORMAT:
        found["EMA"] = content["G"]
    networks = {"G": state.G, "D": state.D} | ({"EMA": state.ema.G} if state.ema else {})
    new: set[str] = set()
    taken = [name for name in networks if found[name] is not None]
    for name in taken:
        new |= take(networks[name], found[name], path, name)
    yield f"{' and '.join(taken)} of {path}, at its step {content['step']:,}"
    if "D" not in taken:
        yield "D is new: an exported file has none"
    if new:
        yield f"the tables of labels are new, since there are other classes: {', '.join(sorted(new))}"


def refuse_others(config: Config, other: Config, path: Path) -> None:
    """Raise UserError where networks of these two configurations have other weights, and name the settings."""
    wrong = [
        f"{name} {getattr(other, name)}, and this run {getattr(config, name)}"
        for name in SHAPING
        if getattr(other, name) != getattr(config, name)
    ]
    if wrong:
        raise UserError(f"--init_from {path} does not fit: it has {'; '.join(wrong)}")


def tables(network: nn.Module) -> set[str]:
    """The names of a network's weights that have a row, or a column, for each class."""
    found = set()
    for name, module in network.named_modules():
        if isinstance(module, (ConditionalBatchNorm, Embedding)) or name == "classes.head":
            found |= {f"{name}.{part}" for part, _ in [*module.named_parameters(), *module.named_buffers()]}
    return found


def take(network: nn.Module, weights: dict[str, Tensor], path: Path, what: str) -> set[str]:
    """Load weights into a network, but for tables of labels of another size, whose names are returned."""
    own = network.state_dict()
    other = {name for name in own if name in weights and weights[name].shape != own[name].shape}
    new = other & tables(network)
    with torch.no_grad():
        checkpoint.load_weights(network, weights | {name: own[name] for name in new}, path, what)
    return new
