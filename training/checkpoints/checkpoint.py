"""Checkpoints: one file holds a run's whole state and its configuration; and generators for inference."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from datasets import Classes
from models import build_models
from settings.config import Config, stored
from settings.layers import check_settings, short
from settings.rules import check_combinations
from utils.errors import Damaged, UserError, memory_ran_out
from utils.files import load_tensors

from . import safetensors
from .run_dir import latest

FORMAT = "sngan-checkpoint-1"
EXPORT_FORMAT = "sngan-generator-1"
METADATA = "sngan"  # under which name a .safetensors keeps what is no tensor
CHECKPOINT_KEYS = {"format", "config", "step", "G", "D", "ema", "opt_G", "opt_D", "random", "data", "pending"}
MAX_CLASSES, SHOWN_CLASSES = 10_000, 10
EXPORT_KEYS = {"format", "config", "step", "ema", "G"}


def load(path: str | Path, formats: Sequence[str] = (FORMAT,)) -> dict[str, Any]:
    """Load and check a file that save() wrote, to the CPU. UserError where it is absent, damaged or something else."""
    path = Path(path)
    try:
        if not path.exists():
            raise UserError(f"there is no checkpoint {path}")
        if not path.is_file():
            raise UserError(f"{path} is not a file")
        if path.suffix == ".onnx":
            raise UserError(
                f"{path} is a graph for onnxruntime; name a run, a checkpoint, or an export as .safetensors"
            )
        with open(path, "rb") as file:
            magic = file.read(2)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        content = load_exported(path) if safetensors.is_one(path) else load_tensors(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error}") from error
    except Exception as error:  # torch raises a dozen kinds here: a zip cut short, a pickle with code in it, ...
        if memory_ran_out(error):
            raise UserError(f"cannot read {path}: out of memory ({error})") from error
        refused = magic[:1] == b"\x80" or (magic == b"PK" and "weights_only" in str(error).lower())
        what = "holds code or objects, which are never loaded" if refused else "is damaged, or no such file at all"
        raise Damaged(f"{path} is not a checkpoint of this project: it {what}") from error
    keys = {FORMAT: CHECKPOINT_KEYS, EXPORT_FORMAT: EXPORT_KEYS}
    found = content.get("format") if isinstance(content, dict) else None
    if not isinstance(found, str) or found not in formats or not keys[found] <= set(content):
        raise Damaged(f"{path} is not a checkpoint of this project that can be used here (format {short(found)})")
    if type(content["step"]) is not int or not 0 <= content["step"] < 2**53:
        raise UserError(f"{path}: its step is {short(content['step'])}, and not a whole number")
    if found == FORMAT and not isinstance(content["data"], dict):
        raise UserError(f"{path}: its data order is not one")
    return content


def load_exported(path: str | Path) -> dict[str, Any]:
    """What export.as_safetensors() wrote: the tensors, and under METADATA all else as JSON. ValueError where not."""
    weights, metadata = safetensors.read(path)
    facts = json.loads(metadata.get(METADATA, "null"))
    if not isinstance(facts, dict):
        raise ValueError(f"there is no {METADATA} in its metadata")
    return facts | {"G": weights}


def config_of(content: dict[str, Any], path: str | Path) -> Config:
    """The Config that a loaded checkpoint holds; a setting that its version did not have yet has its default.

    UserError where it cannot be used, as for a setting that only a newer version knows: it may change what the run is.
    """
    try:
        config = Config(**check_settings(content["config"]))
        check_combinations(config)
    except (ValueError, TypeError, UserError) as error:
        newer = " (or is the file of a newer version?)" if "unknown setting" in str(error) else ""
        raise UserError(f"{path}: its configuration cannot be used: {error}{newer}") from error
    classes = classes_of(content, config, path)
    with torch.device("meta"):  # sizes alone, so that a file with mistaken ones does not fill the memory
        G, _ = models_of(config, classes)
    with fitting(path, "generator"):
        found = {name: tuple(value.shape) for name, value in content["G"].items()}
        expected = {name: tuple(value.shape) for name, value in G.state_dict().items()}
        for name in sorted(found.keys() | expected.keys(), key=str):
            if found.get(name) != expected.get(name):
                raise ValueError(f"{name} is {found.get(name)}, and not {expected.get(name)}")
    return config


def classes_of(content: dict[str, Any], config: Config, path: str | Path) -> Classes | None:
    """The Classes that a loaded checkpoint of a conditional run holds; None of another. UserError for what is none."""
    if config.conditional == "none":
        return None
    with fitting(path, "table of classes"):
        if not isinstance(content.get("classes"), dict):
            raise ValueError("there is none")
        names, counts = content["classes"]["names"], content["classes"]["counts"]
        alike = isinstance(names, list) and isinstance(counts, list) and len(names) == len(counts) == len(set(names))
        if not (alike and 2 <= len(names) <= MAX_CLASSES and all(isinstance(name, str) for name in names)):
            raise ValueError("two names or more are needed, all different, each with a count")
        if not all(type(count) is int and 0 < count < 2**40 for count in counts):
            raise ValueError("each count must be a whole number from 1 on")
    return Classes(tuple(names), tuple(counts))


def stored_classes(classes: Classes | None) -> dict[str, Any]:
    """The entry of a checkpoint or export that classes_of() reads; none of an unconditional run."""
    return {"classes": {"names": list(classes.names), "counts": list(classes.counts)}} if classes else {}


def other_classes(before: Classes | None, now: Classes | None) -> str:
    """In what two sets of Classes differ, in words."""
    names, other = (set(classes.names) if classes else set() for classes in (before, now))
    gone, new = (", ".join(sorted(part)[:SHOWN_CLASSES]) for part in (names - other, other - names))
    parts = [f"{what} {which}" for what, which in (("gone:", gone), ("new:", new)) if which]
    return "; ".join(parts) or "their numbers of images, or their order"


def missing_settings(content: dict[str, Any]) -> list[str]:
    """The settings that a loaded checkpoint does not have, since its version of the project had not."""
    return [name for name in stored(Config()) if name not in content["config"] and name != "total_steps"]


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


def load_weights(module: nn.Module, weights: dict[str, Any], path: str | Path, what: str) -> None:
    """module.load_state_dict(weights), with a UserError where they are another network's."""
    with fitting(path, what):
        module.load_state_dict(weights)


def models_of(config: Config, classes: Classes | None = None) -> tuple[nn.Module, nn.Module]:
    """build_models() with a Config's settings, and a conditional one's Classes. UserError for what no model has."""
    names = ["image_size", "channels", "z_dim", "base_channels", "d_norm", "g_sn", "arch_variant"]
    names += ["conditional", "attention", "groups"]
    num_classes = len(classes.names) if classes else 0
    try:
        return build_models(config.model, num_classes=num_classes, **{name: getattr(config, name) for name in names})
    except ValueError as error:
        raise UserError(str(error)) from error


def generator_of(content: dict[str, Any], path: str | Path, ema: bool = True) -> tuple[nn.Module, Config, bool]:
    """Build the generator of a loaded checkpoint or export, in eval mode. Returns (G, config, whether it is an EMA)."""
    config = config_of(content, path)
    if content["format"] == EXPORT_FORMAT:
        weights, ema = content["G"], content["ema"]
    else:
        ema = ema and content["ema"] is not None
        weights = content["ema"] if ema else content["G"]
    G, _ = models_of(config, classes_of(content, config, path))
    load_weights(G, weights, path, "generator")
    return G.requires_grad_(False).eval(), config, ema


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


def load_trained(
    path: str | Path, ema: bool = True, settings: dict[str, Any] | None = None, device: torch.device | str = "cpu"
) -> Loaded:
    """Load the generator of a run directory's last checkpoint, of a checkpoint, or of an exported file.

    ema: the moving average of its weights, where there is one. settings: what replaces the checkpoint's own (data_dir,
    seed, ...). UserError for what cannot be used.
    """
    path = latest(path) if Path(path).is_dir() else Path(path)
    content = load(path, (FORMAT, EXPORT_FORMAT))
    G, config, ema = generator_of(content, path, ema)
    classes = classes_of(content, config, path)
    config = dataclasses.replace(config, **(settings or {}))
    return Loaded(path, G.to(device), config, content["step"], ema, classes, content.get("data", {}).get("sha256"))


def load_generator(path: str | Path, ema: bool = True) -> nn.Module:
    """The generator that load_trained() loads: G(z) with z (N, G.z_dim) gives (N, C, H, W) in [-1, 1].

    A conditional one, with G.num_classes > 0, is called as G(z, labels), labels (N,) int64.
    """
    return load_trained(path, ema).G


def load_discriminator(path: str | Path) -> nn.Module:
    """Load the discriminator of a checkpoint, in eval mode. UserError where there is none, or it does not fit."""
    content = load(path, (FORMAT, EXPORT_FORMAT))
    if content["format"] == EXPORT_FORMAT:
        raise UserError(f"{path} holds a generator alone, and no discriminator: name a run's checkpoint")
    config = config_of(content, path)
    _, D = models_of(config, classes_of(content, config, path))
    load_weights(D, content["D"], path, "discriminator")
    return D.eval()
