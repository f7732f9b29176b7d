"""Checkpoints, which hold a run's whole state and configuration, and exported generators."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from datasets import Classes
from datasets.listing import in_order
from models import build_models
from settings.config import Config
from settings.layers import check_settings, short
from settings.rules import check_combinations
from utils.errors import Damaged, UserError, memory_ran_out, refuse_if
from utils.files import load_tensors

from .run_dir import latest, nearby

FORMAT, EXPORT_FORMAT = "sngan-checkpoint-1", "sngan-generator-1"
CHECKPOINT_KEYS = {"format", "config", "step", "G", "D", "ema", "opt_G", "opt_D", "random", "data", "pending"}
KEYS = {FORMAT: CHECKPOINT_KEYS, EXPORT_FORMAT: {"format", "config", "step", "ema", "G"}}
METADATA = "sngan"  # key in a .safetensors file's metadata for everything that is not a tensor
HEADER = 8  # bytes before its header, which hold the header's length
MAX_CLASSES, SHOWN_CLASSES = 10_000, 10
# Part of a tensor's name -> the other program that uses such names
SIGNS = {".weight_orig": "torch's spectral norm", ".module.": "DataParallel", "._orig_mod.": "torch.compile"}
SIGNS |= {".parametrizations.": "torch's parametrizations, which its newer spectral norm is one of"}
# The settings, besides the model, that decide the shapes of the weights.
SHAPING = ["image_size", "channels", "z_dim", "base_channels", "arch_variant", "d_norm", "g_sn"]
SHAPING += ["conditional", "attention", "groups"]


class Loaded(NamedTuple):
    """A generator in eval mode, with its configuration and origin.

    ema: whether its weights are a moving average. classes: those of a conditional generator, called as G(z, labels).
    data_sha256: hash of the images that it was trained on, if the file has one.
    """

    path: Path
    G: nn.Module
    config: Config
    step: int
    ema: bool
    classes: Classes | None = None
    data_sha256: str | None = None


class Checkpoint:
    """The content of a checkpoint or an exported generator, and the networks built from it.

    config: settings that the file does not have are at their defaults. classes: of a conditional run, or None. content:
    everything in the file. Raises UserError if its configuration cannot be used or does not fit the weights.
    """

    def __init__(self, path: str | Path, content: dict[str, Any]) -> None:
        self.path, self.content, self.step = Path(path), content, content["step"]
        self.exported = content["format"] == EXPORT_FORMAT
        self.config = _config_of(content, path)
        self.classes = _classes_of(content, self.config, path)
        if self.classes and self.config.dataset == "folder" and self.classes.names != in_order(self.classes.names):
            self.config = dataclasses.replace(self.config, class_order="text")
        with torch.device("meta"), fitting(path, "generator"):  # wrong sizes in a file must not fill the memory
            G, _ = models_of(self.config, self.classes)
            G.load_state_dict(dict(content["G"]), assign=True)  # a copy, since torch marks it as assigned

    def weights(self, name: str) -> dict[str, Any] | None:
        """The weights of "G", "D" or "EMA", or None. An exported generator has only G."""
        if self.exported:
            return self.content["G"] if name == "G" else None
        return self.content["ema" if name == "EMA" else name]

    def generator(
        self, ema: bool = True, settings: dict[str, Any] | None = None, device: torch.device | str = "cpu"
    ) -> Loaded:
        """Build the generator, with averaged weights if `ema` and the file has them.

        settings: replace the checkpoint's own (data_dir, seed, ...). Raises UserError if the weights do not fit.
        """
        average = self.weights("EMA") if ema else None
        G, _ = models_of(self.config, self.classes)
        load_weights(G, average or self.content["G"], self.path, "generator")
        config = dataclasses.replace(self.config, **(settings or {}))
        averaged = self.content["ema"] if self.exported else average is not None
        data_sha256 = self.content.get("data", {}).get("sha256")
        G = G.requires_grad_(False).eval().to(device)
        return Loaded(self.path, G, config, self.step, averaged, self.classes, data_sha256)

    def discriminator(self) -> nn.Module:
        """Build the discriminator, in eval mode. Raises UserError if the file has none or it does not fit."""
        none = f"{self.path} is an exported generator without a discriminator: name a run's checkpoint"
        refuse_if(self.exported, none)
        _, D = models_of(self.config, self.classes)
        load_weights(D, self.content["D"], self.path, "discriminator")
        return D.eval()


def load(path: str | Path, formats: Sequence[str] = (FORMAT,)) -> Checkpoint:
    """Load a file in one of these formats, or a run's last checkpoint. Raises UserError if it cannot be used."""
    path = latest(path) if Path(path).is_dir() else path
    return Checkpoint(path, read(path, formats))


def load_trained(
    path: str | Path, ema: bool = True, settings: dict[str, Any] | None = None, device: torch.device | str = "cpu"
) -> Loaded:
    """Load the generator of a run's last checkpoint, a checkpoint, or an exported file.

    The arguments are those of Checkpoint.generator(). Raises UserError if the file cannot be used.
    """
    return load(path, tuple(KEYS)).generator(ema, settings, device)


def load_generator(path: str | Path, ema: bool = True) -> nn.Module:
    """Load a trained generator: G(z) maps z (N, G.z_dim) to images (N, C, H, W) in [-1, 1].

    A conditional one, with G.num_classes > 0, is called as G(z, labels) with labels (N,) int64.
    """
    return load_trained(path, ema).G


# ---- The file ------------------------------------------------------------------------------------------------------


def read(path: str | Path, formats: Sequence[str] = (FORMAT,)) -> dict[str, Any]:
    """Read a file in one of these formats to the CPU, without checking its contents.

    Raises UserError if it is absent or cannot be read, and Damaged if it is not a whole file in these formats.
    """
    path = Path(path)
    if not os.path.isfile(path):
        absent = f"there is no checkpoint {path}, nor a run of that name. {nearby(path)}"
        raise UserError(f"{path} is not a file" if os.path.exists(path) else absent)
    refuse_if(path.suffix == ".onnx", f"{path} is a graph for onnxruntime; name a run, a checkpoint or a .safetensors")
    try:
        with open(path, "rb") as file:
            start = file.read(HEADER + 1)
        content = _read_safetensors(path) if start[HEADER:] == b"{" else load_tensors(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # torch raises a dozen kinds here: a zip cut short, a pickle with code in it, ...
        if memory_ran_out(error):
            raise UserError(f"cannot read {path}: out of memory ({error})") from error
        refused = start[:1] == b"\x80" or (start[:2] == b"PK" and "weights_only" in str(error).lower())
        what = "holds code or objects, which are never loaded" if refused else "is damaged or of another kind"
        reason = f" ({' '.join(str(error).split())})" if isinstance(error, SafetensorError) else ""
        raise Damaged(f"{path} is not a checkpoint of this project: it {what}{reason}") from error
    found = content.get("format") if isinstance(content, dict) else None
    if not isinstance(found, str):
        raise Damaged(f"{path} is not a checkpoint of this project: {_foreign(content)}")
    if found not in formats or not KEYS[found] <= set(content):
        raise Damaged(f"{path} is not a checkpoint of this project that can be used here (format {short(found)})")
    step = content["step"]
    refuse_if(type(step) is not int or not 0 <= step < 2**53, f"{path}: its step {short(step)} is not a whole number")
    refuse_if(found == FORMAT and not isinstance(content["data"], dict), f"{path}: its data order is damaged")
    return content


def _foreign(content: Any) -> str:
    """Sentences about a file of another program: its content, its likely origin, and what can be read instead."""
    names = [*_names(content)]
    who = [told for sign, told in SIGNS.items() if any(sign in f".{name}" for name in names)]
    holds = f"tensors such as {short(names[-1])}" if names else f"a {type(content).__name__} without named tensors"
    holds += f", named as by {' and '.join(who)}" * bool(who)
    reads = "This project reads its own runs, their checkpoints and what generate.py --export wrote."
    return f"it holds {holds}. {reads} It scores images of any program: evaluate.py --samples DIR"


def _names(content: Any) -> Iterator[str]:
    """Yield the names of the tensors in nested dicts."""
    for name, part in content.items() if isinstance(content, dict) else ():
        yield from [str(name)] if isinstance(part, torch.Tensor) else _names(part)


def _read_safetensors(path: Path) -> dict[str, Any]:
    """Read a file by export.as_safetensors(): the tensors, and everything else as JSON under METADATA."""
    with safe_open(path, "pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is not a dict
        facts = json.loads((file.metadata() or {}).get(METADATA, "null"))
    return (facts if isinstance(facts, dict) else {}) | {"G": weights}


@contextlib.contextmanager
def fitting(path: str | Path, what: str) -> Iterator[None]:
    """Turn any error within it into a UserError that names the file and its part."""
    try:
        yield
    except Exception as error:  # torch raises many kinds, whatever the file holds there
        if memory_ran_out(error):
            raise
        first = " ".join(" ".join(str(error).split("\n")[:2]).split()) or type(error).__name__
        raise UserError(f"{path}: its {what} does not fit its configuration: {first[:300]}") from error


# ---- Its parts -----------------------------------------------------------------------------------------------------


def _config_of(content: dict[str, Any], path: str | Path) -> Config:
    """The configuration in a file. Raises UserError if it cannot be used, also for settings of a newer version."""
    try:
        config = Config(**check_settings(content["config"]))
        check_combinations(config)
    except (ValueError, TypeError, UserError) as error:
        newer = " (or is the file from a newer version?)" if "unknown setting" in str(error) else ""
        raise UserError(f"{path}: its configuration cannot be used: {error}{newer}") from error
    return config


def _classes_of(content: dict[str, Any], config: Config, path: str | Path) -> Classes | None:
    """The Classes of a conditional run, None for other runs. Raises UserError if the table of classes is damaged."""
    if config.conditional == "none":
        return None
    with fitting(path, "table of classes"):
        names, counts = content["classes"]["names"], content["classes"]["counts"]
        named = 2 <= len(names) == len(set(names)) <= MAX_CLASSES and all(isinstance(name, str) for name in names)
        if not (named and len(counts) == len(names) and all(type(n) is int and 0 < n < 2**40 for n in counts)):
            raise ValueError("it needs two names or more, all different, each with a count of at least 1")
        return Classes(tuple(names), tuple(counts))


def stored_classes(classes: Classes | None) -> dict[str, Any]:
    """The entry of a file that Checkpoint.classes is read from; empty for an unconditional run."""
    return {"classes": {"names": list(classes.names), "counts": list(classes.counts)}} if classes else {}


def other_classes(before: Classes | None, now: Classes | None) -> str:
    """The difference between two sets of Classes, in words."""
    names, other = (set(classes.names) if classes else set() for classes in (before, now))
    gone, new = (", ".join(sorted(part)[:SHOWN_CLASSES]) for part in (names - other, other - names))
    parts = [f"{what} {which}" for what, which in (("gone:", gone), ("new:", new)) if which]
    return "; ".join(parts) or "their numbers of images, or their order, see --class_order"


def load_weights(module: nn.Module, weights: Any, path: str | Path, what: str) -> None:
    """module.load_state_dict(weights). Raises UserError if they belong to another network."""
    with fitting(path, what):
        module.load_state_dict(weights)


def models_of(config: Config, classes: Classes | None = None) -> tuple[nn.Module, nn.Module]:
    """Build G and D from a Config and the Classes of a conditional run. Raises UserError if a model cannot do that."""
    settings = {name: getattr(config, name) for name in SHAPING}
    try:
        return build_models(config.model, num_classes=len(classes.names) if classes else 0, **settings)
    except ValueError as error:
        raise UserError(str(error)) from error
