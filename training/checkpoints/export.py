"""Exported generators with spectral normalization folded in, as .pt, .safetensors or ONNX files."""

import copy
import dataclasses
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from datasets import quantise
from models import folded, remove_spectral_norm
from models.conditional import given
from settings.config import Config, stored
from utils.errors import UserError, refuse_if
from utils.files import check_target, save, write_atomically

from .checkpoint import EXPORT_FORMAT, METADATA, Loaded, stored_classes

TRACED_IMAGES = 3  # batch size of the traced graph; torch.export would take 0 and 1 for fixed sizes


class Drawing(nn.Module):
    """The exported graph: z (N, z_dim), and labels (N,) int64 if conditional -> images (N, C, H, W).

    Images are floats in [-1, 1]. as_uint8: integers from 0 to 255 instead, quantised as for scores and always RGB,
    which torch-fidelity's command line needs.
    """

    def __init__(self, G: nn.Module, as_uint8: bool = False) -> None:
        super().__init__()
        self.G, self.as_uint8 = folded(G).cpu(), as_uint8

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        images = self.G(*given(z, labels))
        return quantise(images).expand(-1, 3, -1, -1) if self.as_uint8 else images


def check(path: str | None, as_uint8: bool) -> None:
    """Raise UserError if --export's file cannot be written or has an unknown suffix."""
    suffix = Path(path or "").suffix
    refuse_if(path and suffix not in WRITERS, f"--export {path}: the name must end in {', '.join(WRITERS)}")
    refuse_if(as_uint8 and suffix != ".onnx", "--uint8 goes with --export FILE.onnx")
    check_target(path)


def export(path: str | Path, loaded: Loaded, as_uint8: bool = False) -> None:
    """Save a generator for inference, in the format of the file's suffix, without changing it.

    load_generator() reads .pt and .safetensors. as_uint8: only for ONNX (see Drawing). Raises UserError if a package is
    missing.
    """
    WRITERS[Path(path).suffix](path, loaded, as_uint8)


def facts_of(loaded: Loaded, config: Config) -> dict[str, Any]:
    """The content of an exported file besides its weights. config: that of the weights."""
    facts = {"format": EXPORT_FORMAT, "config": stored(config), "step": loaded.step, "ema": loaded.ema}
    return facts | stored_classes(loaded.classes)


def without_sn(loaded: Loaded) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights with spectral normalization folded in, and the rest of an exported file."""
    G, config = loaded.G, loaded.config
    if config.g_sn:
        G, config = remove_spectral_norm(copy.deepcopy(G)), dataclasses.replace(config, g_sn=False)
    return {name: value.cpu() for name, value in G.state_dict().items()}, facts_of(loaded, config)


def as_pt(path: str | Path, loaded: Loaded, _: bool = False) -> None:
    """Write a file of torch.save() for load_generator()."""
    weights, facts = without_sn(loaded)
    save(path, facts | {"G": weights})


def as_safetensors(path: str | Path, loaded: Loaded, _: bool = False) -> None:
    """Write a .safetensors file: only tensors, with the configuration as JSON in its metadata."""
    weights, facts = without_sn(loaded)
    contiguous = {name: value.contiguous() for name, value in weights.items()}
    content = safetensors.torch.save(contiguous, {"format": "pt", METADATA: json.dumps(facts)})
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def as_onnx(path: str | Path, loaded: Loaded, as_uint8: bool = False) -> None:
    """Write an ONNX graph for any batch size. Raises UserError if the packages for it are missing."""
    G: Any = loaded.G
    inputs, batch = {"z": torch.zeros(TRACED_IMAGES, G.z_dim)}, torch.export.Dim("batch")
    if getattr(G, "num_classes", 0):
        inputs["labels"] = torch.zeros(TRACED_IMAGES, dtype=torch.int64)
    with warnings.catch_warnings(action="ignore"):  # torch's deprecation warnings are of no use to the user
        try:
            program = torch.onnx.export(
                Drawing(G, as_uint8),
                tuple(inputs.values()),
                dynamo=True,
                dynamic_shapes={name: {0: batch} for name in inputs},
                input_names=list(inputs),
                output_names=["images"],
                verbose=False,
            )
        except ImportError as error:
            raise UserError(
                f"--export {path} needs two more packages: pip install onnx onnxscript ({error})"
            ) from error
    assert program is not None
    program.model.metadata_props[METADATA] = json.dumps(facts_of(loaded, loaded.config))
    write_atomically(path, program.save)


# suffix -> (path, loaded, as_uint8) -> None
WRITERS: dict[str, Callable[[str | Path, Loaded, bool], None]] = {
    ".pt": as_pt,
    ".onnx": as_onnx,
    ".safetensors": as_safetensors,
}
