"""Exports: what other programs draw is what the generator draws, at any batch size, and nothing else changes."""

import json

import numpy as np
import pytest
import torch
from helpers import build
from torch import nn

from datasets import quantise
from models import folded
from settings.config import Config, stored
from training.checkpoints import checkpoint, export
from utils.errors import UserError

TINY = {"z_dim": 5, "base_channels": 2}
SIZES = {"dcgan": (8, 16, 32, 48, 64, 128), "resnet": (8, 16, 32, 48, 64, 128), "mlp": (8, 16, 32, 48, 64, 128)}
EVERY = [(model, size) for model, sizes in SIZES.items() for size in sizes]


def loaded_of(model, size, channels=3, **settings):
    config = Config(model=model, image_size=size, channels=channels, g_sn=True, **{**TINY, **settings})
    G, _ = build(model, size, channels=channels, g_sn=True, **{**TINY, **settings})
    for _ in range(10):  # statistics of batch norms that are those of some z, as a trained generator has them
        G(torch.randn(8, G.z_dim))
    return checkpoint.Loaded(None, G.requires_grad_(False).eval(), config, 7, True)


def session(path):
    onnxruntime = pytest.importorskip("onnxruntime")
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def assert_onnx_draws_alike(loaded, path, batches=(1, 3, 70)):
    pytest.importorskip("onnxscript")
    export.export(path, loaded)
    drawn = session(path)
    for count in batches:
        z = torch.randn(count, loaded.G.z_dim)
        (images,) = drawn.run(None, {"z": z.numpy()})
        assert np.abs(images - loaded.G(z).numpy()).max() <= 1e-5


@pytest.mark.parametrize(("model", "size"), [("dcgan", 8), ("resnet", 48), ("mlp", 16), ("r3gan", 8)])
def test_onnxruntime_draws_what_the_generator_draws_at_any_batch_size(tmp_path, model, size):
    assert_onnx_draws_alike(loaded_of(model, size), tmp_path / "G.onnx")


@pytest.mark.slow
@pytest.mark.parametrize(("model", "size"), EVERY)
@pytest.mark.parametrize("base_channels", [4, None])  # and in the paper's widths
def test_onnxruntime_draws_every_model_and_size(tmp_path, model, size, base_channels):
    loaded = loaded_of(model, size, z_dim=128, base_channels=base_channels)
    assert_onnx_draws_alike(loaded, tmp_path / "G.onnx", (1, 5))


def test_an_onnx_file_of_256_levels_is_what_torch_fidelity_takes(tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from torch_fidelity import GenerativeModelONNX

    loaded = loaded_of("dcgan", 8, channels=1)
    export.export(tmp_path / "G.onnx", loaded, as_uint8=True)
    G = GenerativeModelONNX(str(tmp_path / "G.onnx"), loaded.G.z_dim, "normal", 0)
    z = torch.randn(6, loaded.G.z_dim)
    images, expected = G(z), quantise(folded(loaded.G)(z)).expand(-1, 3, -1, -1)
    assert images.dtype == torch.uint8 and images.shape == (6, 3, 8, 8)
    assert (images.int() - expected.int()).abs().max() <= 1
    (facts,) = session(tmp_path / "G.onnx").get_modelmeta().custom_metadata_map.values()
    assert json.loads(facts)["config"]["model"] == "dcgan"


class OfClasses(nn.Module):
    """A generator that takes labels: every pixel is tanh of what z and the label's row sum to."""

    z_dim, num_classes = 4, 3

    def __init__(self):
        super().__init__()
        self.rows = nn.Embedding(3, 4)

    def forward(self, z, labels):
        return (z + self.rows(labels)).tanh().view(-1, 1, 2, 2)


def test_a_generator_of_classes_takes_labels_as_the_second_input(tmp_path):
    pytest.importorskip("onnxscript")
    G = OfClasses().eval()
    export.export(tmp_path / "G.onnx", checkpoint.Loaded(None, G, Config(), 7, False))
    drawn = session(tmp_path / "G.onnx")
    for count in (1, 5):
        z, labels = torch.randn(count, 4), torch.arange(count) % 3
        (images,) = drawn.run(None, {"z": z.numpy(), "labels": labels.numpy()})
        assert np.abs(images - G(z, labels).detach().numpy()).max() <= 1e-6


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".onnx"])
def test_an_export_leaves_the_generator_as_it_was(tmp_path, suffix):
    if suffix == ".onnx":
        pytest.importorskip("onnxscript")
    loaded = loaded_of("mlp", 8)
    z = torch.randn(3, 5)
    before = loaded.G(z)
    export.export(tmp_path / f"G{suffix}", loaded)
    assert torch.equal(before, loaded.G(z))
    assert loaded.config.g_sn and any("parametrizations" in name for name in loaded.G.state_dict())


@pytest.mark.parametrize("g_sn", [True, False])
def test_tensors_alone_give_the_generator_and_its_configuration_back(tmp_path, g_sn):
    loaded = loaded_of("resnet", 8)
    if not g_sn:
        G, _ = build("resnet", 8, **TINY)
        loaded = loaded._replace(G=G.eval(), config=Config(model="resnet", image_size=8, channels=3, **TINY))
    export.export(tmp_path / "G.safetensors", loaded)
    again = checkpoint.load_trained(tmp_path / "G.safetensors")
    z = torch.randn(4, 5)
    assert (again.G(z) - loaded.G(z)).abs().max() <= 1e-6
    assert (again.step, again.ema) == (7, True)
    assert stored(again.config) == stored(loaded.config) | {"g_sn": False}


def test_a_missing_package_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    def missing(*args, **kwargs):
        raise ModuleNotFoundError("No module named 'onnxscript'")

    monkeypatch.setattr(torch.onnx, "export", missing)
    with pytest.raises(UserError, match="needs two more packages: pip install onnx onnxscript"):
        export.export(tmp_path / "G.onnx", loaded_of("mlp", 8))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("path", "as_uint8", "words"),
    [
        ("G.bin", False, r"G.bin: the name must end in .pt, .onnx, .safetensors"),
        ("G.pt", True, "--uint8 goes with --export FILE.onnx"),
        (None, True, "--uint8 goes with --export FILE.onnx"),
    ],
)
def test_what_cannot_be_exported_is_refused(path, as_uint8, words):
    with pytest.raises(UserError, match=words):
        export.check(path, as_uint8)
