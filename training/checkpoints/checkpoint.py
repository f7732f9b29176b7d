"""Checkpoints: one file holds a run's whole state and its configuration; and generators for inference."""

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
METADATA = "sngan"  # under which name a .safetensors keeps what is no tensor
HEADER = 8  # bytes of its header's length, before the header
MAX_CLASSES, SHOWN_CLASSES = 10_000, 10
# What is part of the names of other programs' tensors -> who names them so
SIGNS = {".weight_orig": "torch's spectral norm", ".module.": "DataParallel", "._orig_mod.": "torch.compile"}
# The settings, beside the model, that a network's weights have to be of.
SHAPING = ["image_size", "channels", "z_dim", "base_channels", "arch_variant", "d_norm", "g_sn"]
SHAPING += ["conditional", "attention", "groups"]


class Loaded(NamedTuple):
    """A generator in eval mode, and what is known of it.

    ema: whether its weights are a moving average. classes: those of a conditional one, which is called as G(z, labels).
    data_sha256: of the images it was trained on, where the file knows that.
    """

    path: Path
    G: nn.Module
    config: Config
    step: int
    ema: bool
    classes: Classes | None = None
    data_sha256: str | None = None


class Checkpoint:
    """What a checkpoint or an exported generator holds, and the networks that it makes of it.

    config: where its version did not have a setting yet, the default. classes: of a conditional run, or None.
    content: all that the file holds. UserError where its configuration cannot be used, or is not of these weights.
    """

    def __init__(self, path: str | Path, content: dict[str, Any]) -> None:
        self.path, self.content, self.step = Path(path), content, content["step"]
        self.exported = content["format"] == EXPORT_FORMAT
        self.config = _config_of(content, path)
        self.classes = _classes_of(content, self.config, path)
        if self.classes and self.config.dataset == "folder" and self.classes.names != in_order(self.classes.names):
            self.config = dataclasses.replace(self.config, class_order="text")
        with torch.device("meta"), fitting(path, "generator"):  # mistaken sizes of a file must not fill the memory
            G, _ = models_of(self.config, self.classes)
            G.load_state_dict(dict(content["G"]), assign=True)  # a copy: torch notes in it that it was assigned

    def weights(self, name: str) -> dict[str, Any] | None:
        """Those of G, D or the EMA; None where there are none. An exported generator has a G alone."""
        if self.exported:
            return self.content["G"] if name == "G" else None
        return self.content["ema" if name == "EMA" else name]

    def generator(
        self, ema: bool = True, settings: dict[str, Any] | None = None, device: torch.device | str = "cpu"
    ) -> Loaded:
        """Build the generator; of the moving average of its weights, where that is wanted and there is one.

        settings: what replaces the checkpoint's own (data_dir, seed, ...). UserError where the weights do not fit.
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
        """Build the discriminator, in eval mode. UserError where there is none, or it does not fit."""
        none = f"{self.path} holds a generator alone, and no discriminator: name a run's checkpoint"
        refuse_if(self.exported, none)
        _, D = models_of(self.config, self.classes)
        load_weights(D, self.content["D"], self.path, "discriminator")
        return D.eval()


def load(path: str | Path, formats: Sequence[str] = (FORMAT,)) -> Checkpoint:
    """Load a file of one of these formats, or a run directory's last checkpoint. UserError where it cannot be used."""
    path = latest(path) if Path(path).is_dir() else path
    return Checkpoint(path, read(path, formats))


def load_trained(
    path: str | Path, ema: bool = True, settings: dict[str, Any] | None = None, device: torch.device | str = "cpu"
) -> Loaded:
    """Load the generator of a run directory's last checkpoint, of a checkpoint, or of an exported file.

    As Checkpoint.generator(), with its arguments. UserError for what cannot be used.
    """
    return load(path, tuple(KEYS)).generator(ema, settings, device)


def load_generator(path: str | Path, ema: bool = True) -> nn.Module:
    """The generator that load_trained() loads: G(z) with z (N, G.z_dim) gives (N, C, H, W) in [-1, 1].

    A conditional one, with G.num_classes > 0, is called as G(z, labels), labels (N,) int64.
    """
    return load_trained(path, ema).G


# ---- The file ------------------------------------------------------------------------------------------------------


def read(path: str | Path, formats: Sequence[str] = (FORMAT,)) -> dict[str, Any]:
    """Read a file of one of these formats, to the CPU. UserError where it is absent, Damaged where it is no such file.

    Its configuration and weights are not looked at: Checkpoint does that.
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
        what = "holds code or objects, which are never loaded" if refused else "is damaged, or no such file at all"
        reason = f" ({' '.join(str(error).split())})" if isinstance(error, SafetensorError) else ""
        raise Damaged(f"{path} is not a checkpoint of this project: it {what}{reason}") from error
    found = content.get("format") if isinstance(content, dict) else None
    if not isinstance(found, str):
        raise Damaged(f"{path} is not a checkpoint of this project: {_foreign(content)}")
    if found not in formats or not KEYS[found] <= set(content):
        raise Damaged(f"{path} is not a checkpoint of this project that can be used here (format {short(found)})")
    step = content["step"]
    refuse_if(type(step) is not int or not 0 <= step < 2**53, f"{path}: its step is {short(step)}, no whole number")
    refuse_if(found == FORMAT and not isinstance(content["data"], dict), f"{path}: its data order is not one")
    return content


def _foreign(content: Any) -> str:
    """What a file of another program holds, who names tensors so, and what can be read in its place."""
    names = [*_names(content)]
    who = [told for sign, told in SIGNS.items() if any(sign in f".{name}" for name in names)]
    holds = f"tensors such as {short(names[-1])}" if names else f"a {type(content).__name__} without named tensors"
    holds += f", named as by {' and '.join(who)}" * bool(who)
    reads = "This project reads its own runs, their checkpoints and what generate.py --export wrote."
    return f"it holds {holds}. {reads} It scores images of any program: evaluate.py --samples DIR"


def _names(content: Any) -> Iterator[str]:
    """The names of the tensors in dicts of dicts."""
    for name, part in content.items() if isinstance(content, dict) else ():
        yield from [str(name)] if isinstance(part, torch.Tensor) else _names(part)


def _read_safetensors(path: Path) -> dict[str, Any]:
    """What export.as_safetensors() wrote: the tensors, and under METADATA all else as JSON."""
    with safe_open(path, "pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
        facts = json.loads((file.metadata() or {}).get(METADATA, "null"))
    return (facts if isinstance(facts, dict) else {}) | {"G": weights}


@contextlib.contextmanager
def fitting(path: str | Path, what: str) -> Iterator[None]:
    """Turn any error within, where a part of a loaded file is taken over, into a UserError that names file and part."""
    try:
        yield
    except Exception as error:  # of torch, for whatever the file holds in that place
        if memory_ran_out(error):
            raise
        first = " ".join(" ".join(str(error).split("\n")[:2]).split()) or type(error).__name__
        raise UserError(f"{path}: its {what} does not fit its configuration: {first[:300]}") from error


# ---- Its parts -----------------------------------------------------------------------------------------------------


def _config_of(content: dict[str, Any], path: str | Path) -> Config:
    """UserError for a setting that only a newer version knows, too: it may change what the run is."""
    try:
        config = Config(**check_settings(content["config"]))
        check_combinations(config)
    except (ValueError, TypeError, UserError) as error:
        newer = " (or is the file of a newer version?)" if "unknown setting" in str(error) else ""
        raise UserError(f"{path}: its configuration cannot be used: {error}{newer}") from error
    return config


def _classes_of(content: dict[str, Any], config: Config, path: str | Path) -> Classes | None:
    """The Classes of a conditional run; None of another. UserError for what is none."""
    if config.conditional == "none":
        return None
    with fitting(path, "table of classes"):
        names, counts = content["classes"]["names"], content["classes"]["counts"]
        named = 2 <= len(names) == len(set(names)) <= MAX_CLASSES and all(isinstance(name, str) for name in names)
        if not (named and len(counts) == len(names) and all(type(n) is int and 0 < n < 2**40 for n in counts)):
            raise ValueError("two names or more are needed, all different, each with a count from 1 on")
        return Classes(tuple(names), tuple(counts))


def stored_classes(classes: Classes | None) -> dict[str, Any]:
    """The entry of a checkpoint or export that Checkpoint.classes is read from; none of an unconditional run."""
    return {"classes": {"names": list(classes.names), "counts": list(classes.counts)}} if classes else {}


def other_classes(before: Classes | None, now: Classes | None) -> str:
    """In what two sets of Classes differ, in words."""
    names, other = (set(classes.names) if classes else set() for classes in (before, now))
    gone, new = (", ".join(sorted(part)[:SHOWN_CLASSES]) for part in (names - other, other - names))
    parts = [f"{what} {which}" for what, which in (("gone:", gone), ("new:", new)) if which]
    return "; ".join(parts) or "their numbers of images, or their order, see --class_order"


def load_weights(module: nn.Module, weights: Any, path: str | Path, what: str) -> None:
    """module.load_state_dict(weights), with a UserError where they are another network's."""
    with fitting(path, what):
        module.load_state_dict(weights)


def models_of(config: Config, classes: Classes | None = None) -> tuple[nn.Module, nn.Module]:
    """build_models() with a Config's settings, and a conditional one's Classes. UserError for what no model has."""
    settings = {name: getattr(config, name) for name in SHAPING}
    try:
        return build_models(config.model, num_classes=len(classes.names) if classes else 0, **settings)
    except ValueError as error:
        raise UserError(str(error)) from error
