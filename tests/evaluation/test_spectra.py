"""Spectra, bounds and gradients of D against dense matrices, the Fourier transform and finite differences."""

import itertools
import json
import math
import random
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from helpers import SMALL, fails
from torch import nn

import train
from datasets.sources import load_split
from evaluation import lipschitz
from models import build_models, spectral_norm
from models.convolution import Conv2d
from models.normalization import BatchNorm, LayerNorm
from models.resampling import ConvAvgPool2d
from models.resnet import DownBlock
from models.spectral_norm import iteration
from training import checkpoint, monitor
from training.run_dir import latest
from training.state import State
from utils.settings import resolve


@torch.no_grad()
def dense(linear, shape):
    """The matrix of a linear map of (1, *shape), column by column: (outputs, inputs)."""
    columns = torch.eye(math.prod(shape), dtype=torch.float64).view(-1, 1, *shape)
    return torch.stack([linear(column).flatten() for column in columns], dim=1)


def without_bias(layer):
    layer.bias = None
    return layer.double()


def fourier_singular_values(kernel, size):
    """All singular values of a circular convolution of size x size maps (Sedghi, Gupta and Long 2019, theorem 6)."""
    padded = np.zeros((*kernel.shape[:2], size, size))
    padded[:, :, : kernel.shape[2], : kernel.shape[3]] = kernel
    matrices = np.fft.fft2(padded).transpose(2, 3, 0, 1)  # (size, size, C', C): one for each frequency
    return np.sort(np.linalg.svd(matrices, compute_uv=False).ravel())[::-1]


# ---- Layers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("kernel", "padding"), [(1, 0), (3, 0), (3, 1), (4, 1), (5, 2)])
def test_the_norm_of_a_convolution_is_that_of_its_dense_matrix(kernel, padding, stride):
    layer = without_bias(nn.Conv2d(3, 4, kernel, stride, padding))
    expected = torch.linalg.svdvals(dense(layer, (3, 7, 6)))[0].item()
    assert lipschitz.operator_norm(layer, (3, 7, 6)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (ConvAvgPool2d(3, 5), (3, 8, 6)),
        (Conv2d(2, 6, 4, 2, 1), (2, 8, 8)),
        (nn.Linear(11, 6), (11,)),
        (nn.Linear(4, 1), (4,)),
        (nn.Linear(1, 4), (1,)),
        (nn.Conv2d(1, 1, 1), (1, 1, 1)),
    ],
    ids=["ConvAvgPool2d", "Conv2d", "Linear", "Linear to 1", "Linear from 1", "a number"],
)
def test_the_norm_of_a_layer_is_that_of_its_dense_matrix(layer, shape):
    layer = without_bias(layer)
    expected = torch.linalg.svdvals(dense(layer, shape))[0].item()
    assert lipschitz.operator_norm(layer, shape) == pytest.approx(expected, rel=1e-6)


def test_the_norms_of_maps_that_are_known():
    assert lipschitz.operator_norm(lambda x: 0 * x, (5,)) == 0
    assert lipschitz.operator_norm(lambda x: -3 * x, (2, 4, 4)) == pytest.approx(3)
    assert lipschitz.operator_norm(lambda x: nn.functional.avg_pool2d(x, 2), (2, 6, 4)) == pytest.approx(
        lipschitz.POOLING
    )
    assert lipschitz.operator_norm(lambda x: x.sum(dim=(2, 3)), (2, 3, 5)) == pytest.approx(math.sqrt(15))
    diagonal = torch.arange(1.0, 41.0, dtype=torch.float64)
    assert lipschitz.operator_norm(lambda x: diagonal * x, (40,)) == pytest.approx(40)
    close = torch.linspace(0.9999, 1, 300, dtype=torch.float64)  # where power iteration all but stands still
    assert lipschitz.operator_norm(lambda x: close * x, (300,)) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize(("kernel", "size"), [(3, 6), (4, 5)])
def test_circular_convolutions_have_the_singular_values_of_the_fourier_transform(kernel, size):
    def circular(x):
        return layer(nn.functional.pad(x, (0, kernel - 1, 0, kernel - 1), mode="circular"))

    layer = without_bias(nn.Conv2d(3, 4, kernel))
    expected = fourier_singular_values(layer.weight.detach().numpy(), size)
    assert lipschitz.operator_norm(circular, (3, size, size)) == pytest.approx(expected[0], rel=1e-6)
    found = torch.linalg.svdvals(dense(circular, (3, size, size))).numpy()
    assert len(expected) == 3 * size**2
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_zero_padding_costs_no_norm():
    """A zero-padded convolution is a block of the circular one on a map large enough: its norm is at most that."""
    layer = without_bias(nn.Conv2d(3, 4, 3, padding=1))
    whole = fourier_singular_values(layer.weight.detach().numpy(), 8 + 2)[0]
    assert 0.8 * whole < lipschitz.operator_norm(layer, (3, 8, 8)) <= whole


def test_a_strided_convolution_that_tiles_the_image_has_the_norm_of_its_reshaped_weight():
    layer = without_bias(nn.Conv2d(3, 4, 2, stride=2))
    sigma = lipschitz.singular_values(layer.weight)[0].item()
    assert lipschitz.operator_norm(layer, (3, 8, 8)) == pytest.approx(sigma, rel=1e-6)


def test_singular_values_of_a_weight_are_those_it_was_made_of():
    U, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))
    V, _ = torch.linalg.qr(torch.randn(12, 4, dtype=torch.float64))
    values = torch.tensor([5.0, 2.0, 1.0, 0.5], dtype=torch.float64)
    weight = ((U * values) @ V.t()).view(4, 3, 2, 2)
    assert lipschitz.singular_values(nn.Parameter(weight)).tolist() == pytest.approx(values.tolist())


# ---- Gradients -----------------------------------------------------------------------------------------------------


def test_a_linear_discriminator_has_the_gradient_of_its_weight_everywhere():
    D = nn.Sequential(nn.Flatten(), nn.Linear(12, 1))
    D[1].weight.data = torch.full((1, 12), 0.5)
    norms = lipschitz.input_gradient_norms(D, torch.randn(lipschitz.BATCH + 3, 3, 2, 2))
    assert norms.shape == (lipschitz.BATCH + 3,) and not norms.requires_grad
    assert norms.tolist() == pytest.approx([3**0.5] * len(norms))
    assert all(parameter.grad is None for parameter in D.parameters())


def test_gradient_norms_are_those_of_finite_differences():
    _, D = build_models("dcgan", image_size=8, channels=1, base_channels=2, d_norm="layer")
    D.double().eval()
    images, step = torch.randn(3, 1, 8, 8, dtype=torch.float64), 1e-6
    with torch.no_grad():
        moves = step * torch.eye(64, dtype=torch.float64).view(64, 1, 1, 8, 8)
        slopes = [(D(images + move) - D(images - move)).squeeze(1) / (2 * step) for move in moves]
    expected = torch.stack(slopes).norm(dim=0)
    assert lipschitz.input_gradient_norms(D, images).tolist() == pytest.approx(expected.tolist(), rel=1e-5)


# ---- Audits --------------------------------------------------------------------------------------------------------

NORMS = ["none", "spectral", "weight", "batch", "layer", ("spectral", "batch"), ("weight", "layer")]


def moved(model, d_norm, base_channels=4):
    """A small D away from its initial values, with statistics of batch norms that are no ones and zeros."""
    _, D = build_models(model, image_size=8, channels=1, base_channels=base_channels, d_norm=d_norm)
    with torch.no_grad():
        for parameter in D.parameters():
            parameter.add_(0.3 * parameter.abs().mean().clamp_min(0.1) * torch.randn_like(parameter))
        for module in D.modules():
            if isinstance(module, BatchNorm):
                module.running_mean.normal_()
                module.running_var.uniform_(0.2, 3)
    return D


def images(count=20, channels=1, size=8):
    return torch.rand(2, count, channels, size, size) * 2 - 1


@pytest.mark.parametrize("d_norm", NORMS, ids=str)
@pytest.mark.parametrize("model", ["dcgan", "resnet", "mlp"])
def test_the_bound_is_above_the_steepest_gradient(model, d_norm):
    D = moved(model, d_norm)
    real, fake = images()
    found = lipschitz.audit(D, real, fake)
    D.eval()
    for name, points in (("real", real), ("fake", fake)):
        norms = lipschitz.input_gradient_norms(D, points)
        assert found["gradient_norm"][name]["max"] == pytest.approx(norms.max().item(), rel=1e-4)
        assert found["gradient_norm"][name]["mean"] == pytest.approx(norms.mean().item(), rel=1e-4)
    assert found["lower_bound"] == max(norms["max"] for norms in found["gradient_norm"].values())
    assert 0 < found["lower_bound"] <= found["upper_bound"]
    # No two images are further apart in logits than the bound allows.
    with torch.no_grad():
        apart = (D(real) - D(fake)).abs().flatten() / (real - fake).flatten(1).norm(dim=1)
    assert apart.max() <= found["upper_bound"]
    linear = [module for module in D.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    assert len(found["layers"]) == len(linear)
    assert len(found["normalizations"]) == sum(isinstance(module, (BatchNorm, LayerNorm)) for module in D.modules())
    for layer in found["layers"]:
        assert layer["sigma_power_iteration"] == pytest.approx(layer["sigma_svd"], rel=1e-4)
        assert len(layer["singular_values"]) == min(layer["weight"])
        effective = D.get_submodule(layer["name"]).weight.detach().flatten(1)
        assert list(effective.shape) == layer["weight"]
        assert layer["sigma_svd"] == pytest.approx(torch.linalg.matrix_norm(effective, 2).item(), rel=1e-4)
    assert json.loads(json.dumps(found, allow_nan=False)) == found  # plain values


@pytest.mark.parametrize("model", ["dcgan", "resnet", "mlp"])
def test_an_audit_has_the_norm_of_each_layer_as_it_maps_its_input(model):
    D = moved(model, "weight", base_channels=2)
    found = lipschitz.audit(D, *images())
    D.eval().double()
    for layer in found["layers"]:
        module, zero = D.get_submodule(layer["name"]), torch.zeros(1, *layer["input"], dtype=torch.float64)
        constant = module(zero).detach()
        matrix = dense(lambda x: module(x) - constant, layer["input"])  # noqa: B023
        assert layer["operator_norm"] == pytest.approx(torch.linalg.svdvals(matrix)[0].item(), rel=1e-5)


def test_layers_are_named_in_the_order_of_the_forward():
    def said(model):
        found = lipschitz.audit(moved(model, "none"), *images())["layers"]
        return [(layer["name"], layer["kind"], layer["input"]) for layer in found]

    assert said("dcgan")[:2] == [
        ("layers.0", "Conv2d 3x3", [1, 8, 8]),
        ("layers.2", "Conv2d 4x4, stride 2", [4, 8, 8]),
    ]
    assert said("resnet")[:4] == [
        ("blocks.0.conv1", "Conv2d 3x3", [1, 8, 8]),
        ("blocks.0.conv2", "Conv2d 3x3 and pool", [4, 8, 8]),
        ("blocks.0.shortcut", "Conv2d 1x1", [1, 4, 4]),
        ("blocks.1.conv1", "Conv2d 3x3", [4, 4, 4]),
    ]
    assert said("mlp") == [("layers.0", "Linear", [64]), ("layers.2", "Linear", [8]), ("layers.5", "Linear", [4])]


def test_the_bound_of_a_linear_discriminator_is_its_slope():
    D = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    D[1].weight.data = torch.full((1, 64), 0.25)
    found = lipschitz.audit(D, *images())
    for name in ("upper_bound", "upper_bound_reshaped", "lower_bound"):
        assert found[name] == pytest.approx(2)


def test_the_bound_of_a_hidden_layer_is_reached_where_it_is_on():
    """D(x) = 3 * LeakyReLU(2 x_0 + 100): of slope 6 where that is above 0, as it is on every image."""
    D = nn.Sequential(nn.Flatten(), nn.Linear(64, 2), nn.LeakyReLU(0.2), nn.Linear(2, 1))
    with torch.no_grad():
        for parameter in D.parameters():
            parameter.zero_()
        D[1].weight[0, 0], D[1].bias[0], D[3].weight[0, 0] = 2, 100, 3
        real, fake = images()
        found = lipschitz.audit(D, real, fake)
        assert (found["upper_bound"], found["lower_bound"]) == pytest.approx((6, 6))
        D[1].bias[0] = -100  # off: the slope is 0.2 of it, and the bound the same
        found = lipschitz.audit(D, real, fake)
        assert (found["upper_bound"], found["lower_bound"]) == pytest.approx((6, 1.2))


def test_a_linear_resnet_block_is_within_its_bound_and_a_bound_of_parts_is_tight_alone():
    """With biases that keep every ReLU on, the block is linear: its Jacobian at zero is its matrix."""
    block = DownBlock(2, 3, down=True, first=True).double()
    with torch.no_grad():
        block.conv1.bias.fill_(1e3)
    zero = torch.zeros(1, 2, 4, 4, dtype=torch.float64)
    constant = block(zero).detach()
    jacobian = torch.linalg.svdvals(dense(lambda x: block(x) - constant, (2, 4, 4)))[0].item()

    def bound():
        layers = {"conv1": (2, 4, 4), "conv2": (3, 4, 4), "shortcut": (2, 2, 2)}
        norms = {}
        for name, shape in layers.items():
            layer = getattr(block, name)
            at_zero = layer(torch.zeros(1, *shape, dtype=torch.float64))
            norms[layer] = torch.linalg.svdvals(dense(lambda x: layer(x) - at_zero, shape))[0].item()  # noqa: B023
        return lipschitz.lipschitz(block, norms, {})

    assert 0.3 * bound() < jacobian <= bound()
    with torch.no_grad():
        block.conv2.weight.zero_()  # the shortcut alone, of pooling and a 1x1 convolution
    sigma = lipschitz.singular_values(block.shortcut.weight)[0].item()
    jacobian = torch.linalg.svdvals(dense(lambda x: block(x) - block(zero), (2, 4, 4)))[0].item()
    assert bound() == pytest.approx(jacobian, rel=1e-9) and jacobian == pytest.approx(sigma / 2, rel=1e-9)


def test_a_resnets_bound_counts_its_sum_over_the_map():
    """Without residual paths, a ResNet of ones sums its pixels: a slope of 1/4 for each of 64 at a positive image."""
    _, D = build_models("resnet", image_size=8, channels=1, base_channels=1, d_norm="none")
    with torch.no_grad():
        for name, parameter in D.named_parameters():
            parameter.fill_(float(name in ("blocks.0.shortcut.weight", "head.weight")))
    found = lipschitz.audit(D, torch.rand(4, 1, 8, 8) + 0.1, torch.rand(4, 1, 8, 8) + 0.1)
    assert found["upper_bound"] == pytest.approx(2) and found["lower_bound"] == pytest.approx(2)


def test_normalizations_scale_by_what_their_statistics_and_gains_say():
    _, D = build_models("mlp", image_size=8, channels=1, base_channels=2, d_norm="batch")
    norm = D.layers[3]
    norm.running_var.copy_(torch.tensor([4.0, 0.25]) - norm.eps)
    norm.weight.data = torch.tensor([-6.0, 1.0])
    (found,) = lipschitz.audit(D, *images())["normalizations"]
    assert found == {"name": "layers.3", "lipschitz": pytest.approx(3)}
    _, D = build_models("mlp", image_size=8, channels=1, base_channels=2, d_norm="layer")
    D.layers[3].weight.data = torch.tensor([-6.0, 1.0])
    (found,) = lipschitz.audit(D, *images())["normalizations"]
    assert found["lipschitz"] == pytest.approx(6 / math.sqrt(1e-5))


def test_the_bound_of_a_layer_norm_is_its_slope_at_a_constant_input():
    norm = LayerNorm(3).double()
    norm.weight.data = torch.tensor([2.0, 2.0, 2.0], dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: norm(x[None]).flatten(), torch.ones(3).double())
    slope = torch.linalg.svdvals(jacobian)[0].item()
    assert lipschitz.lipschitz(norm, {}, {}) == pytest.approx(slope, rel=1e-9)


@pytest.mark.parametrize("model", ["dcgan", "resnet", "mlp"])
def test_spectral_normalization_that_has_converged_leaves_every_reshaped_norm_at_one(model):
    D = moved(model, "spectral")
    with iteration(D, True), torch.no_grad():
        for _ in range(200):
            D(torch.zeros(1, 1, 8, 8))
    found = lipschitz.audit(D, *images())
    assert [layer["sigma_svd"] for layer in found["layers"]] == pytest.approx([1] * len(found["layers"]), abs=1e-3)
    # On the way from an image to its logit, only pooling, summing and the shortcuts are left then: 1 for the CNN and
    # MLP, and for the ResNet (1/2 + 1/2) (1 + 1) (1 + 1) times 4, the root of a map of 4x4.
    assert found["upper_bound_reshaped"] == pytest.approx({"resnet": 16}.get(model, 1), rel=0.01)


def test_an_audit_changes_nothing():
    def state():
        values = {name: value.clone() for name, value in D.state_dict().items()}
        facts = [(m.training, type(m), len(m._forward_pre_hooks)) for m in D.modules()]
        facts += [(p.requires_grad, p.grad) for p in D.parameters()]
        return values, facts, torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()

    for d_norm, training in itertools.product([("spectral", "batch"), "weight"], (True, False)):
        D = moved("dcgan", d_norm).train(training)
        real, fake = images()
        before = state()
        first = lipschitz.audit(D, real, fake)
        after = state()
        assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])
        assert before[0].keys() == after[0].keys() and before[1] == after[1] and before[3:] == after[3:]
        assert torch.equal(before[2], after[2])
        assert lipschitz.audit(D, real, fake) == first  # to the bit
        u = before[0].get("layers.0.parametrizations.weight.0.u")
        D.train()(real)  # and it trains on: its u moves, through the class it shared with its copy
        if u is not None:
            assert not torch.equal(D.layers[0].parametrizations.weight[0].u, u)


@pytest.mark.parametrize(
    ("D", "words"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Softplus(), nn.Linear(4, 1)), "of the slope of a Softplus"),
        (nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64, track_running_stats=False), nn.Linear(64, 1)), "statistics"),
    ],
    ids=["Softplus", "BatchNorm1d"],
)
def test_what_cannot_be_bounded_is_refused(D, words):
    with pytest.raises(ValueError, match=words):
        lipschitz.audit(D, *images())


def test_weights_that_are_not_finite_are_refused():
    D = spectral_norm(nn.Linear(64, 1))
    D.parametrizations.weight.original.data[0, 3] = torch.nan
    with pytest.raises(ValueError, match="weights of D are not finite"):
        lipschitz.audit(nn.Sequential(nn.Flatten(), D), *images())


def test_the_summary_has_a_line_for_each_layer_and_says_what_they_mean():
    D = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 1))
    D[1].running_var.fill_(1 - D[1].eps)
    D[2].weight.data = torch.full((1, 64), 0.25)
    lines = lipschitz.summary(lipschitz.audit(D, *images())).splitlines()
    assert lines[1].split() == ["2", "Linear", "1x64", "2.0000", "2.0000", "2.0000"]
    assert lines[2] == "1: scales by 1 at most"
    assert lines[3] == "gradient norm, real: 2 in the mean, 2 at most"
    assert "slope is at most 2 (" in lines[-1] and lines[-1].endswith("seen at 220 points is 2")


# ---- evaluate.py --audit -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d_norm", ["spectral", "none", "batch"])
def test_a_trained_spectrally_normalized_discriminator_keeps_its_norms_near_one_and_a_standard_one_does_not(d_norm):
    flags = {"dataset": "digits", "model": "mlp", "base_channels": 32, "loss": "bce", "d_norm": (d_norm,)}
    config, _ = resolve({**flags, "lr_G": 2e-4, "lr_D": 2e-4, "betas": (0.5, 0.999)})  # the paper's setting C
    state = State(config, load_split(config), torch.device("cpu"))
    for _ in range(150):
        train.step(state, config)
    found = lipschitz.audit(state.D, *monitor.probe(state, torch.randn(50, config.z_dim)))
    off = max(abs(layer["sigma_svd"] - 1) for layer in found["layers"])
    assert off < 0.05 if d_norm == "spectral" else off > 0.05
    assert 0 < found["lower_bound"] <= found["upper_bound"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data_dir):
    """A run of digits with checkpoints at the steps 0 and 2."""
    from train import train
    from utils.settings import resolve

    settings = SMALL | {"total_steps": 2, "save_every": 2, "data_dir": data_dir, "device": "cpu"}
    config, _ = resolve(settings | {"run_dir": str(tmp_path_factory.mktemp("runs") / "run")})
    train(config)
    return config.run_dir


@pytest.fixture
def run(trained, tmp_path):
    return Path(copytree(trained, tmp_path / "run"))


def test_evaluate_audits_a_runs_newest_checkpoint_or_the_one_that_is_named(run, call, data_dir):
    done = call("evaluate.py", run, "--audit", "--data_dir", data_dir)
    assert done.returncode == 0, done.stderr
    assert f"written to {run / 'audit.json'}" in done.stdout and "D's slope is at most" in done.stdout
    found = json.loads((run / "audit.json").read_text())
    assert (found["step"], found["dataset"], found["d_norm"], found["num_images"]) == (2, "digits", ["spectral"], 512)
    assert found["checkpoint"] == str(run / "checkpoints" / "step_000002.pt")
    assert 0 < found["lower_bound"] < found["upper_bound"] and len(found["layers"]) == 8
    D = checkpoint.load_discriminator(run / "checkpoints" / "step_000002.pt")
    for layer in found["layers"]:
        sigma = torch.linalg.matrix_norm(D.get_submodule(layer["name"]).weight.flatten(1), 2).item()
        assert layer["sigma_svd"] == pytest.approx(sigma, rel=1e-4)
    again = (run / "audit.json").read_bytes()
    done = call("evaluate.py", run, run / "checkpoints" / "step_000000.pt", "--audit", "--data_dir", data_dir)
    assert done.returncode == 0, done.stderr
    assert (run / "audit.json").read_bytes() == again
    assert json.loads((run / "audit_step_000000.json").read_text())["step"] == 0
    assert not list(run.glob("evaluation*"))
    done = call("evaluate.py", run, "--audit", "--no_ema", "--data_dir", data_dir)
    assert json.loads((run / "audit_step_000002_no_ema.json").read_text())["ema"] is False, done.stderr


def test_an_exported_generator_has_no_discriminator_to_audit(run, call, tmp_path):
    exported = tmp_path / "G.pt"
    assert call("evaluate.py", run, "--export", exported).returncode == 0
    fails(call("evaluate.py", exported, "--audit"), "G.pt holds a generator alone, and no discriminator")


def test_a_checkpoint_with_broken_or_foreign_weights_of_d_is_refused(run, call, data_dir):
    path = latest(run)
    content = checkpoint.load(path)
    name, bias = next((name, value) for name, value in content["D"].items() if name.endswith("bias"))
    for value, words in ((bias * torch.nan, "weights of D are not finite"), (bias[:1], "its discriminator does not")):
        content["D"][name] = value.clone()
        torch.save(content, path)
        fails(call("evaluate.py", path, "--audit", "--data_dir", data_dir), path.name, words)
    assert not (run / "audit.json").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--samples", "x.npz", "--audit"], "--samples are scored, and nothing else"),
        (["a.pt", "--audit", "--save_samples", "x.npz"], "--audit do not score"),
        (["a.pt", "--audit", "--bootstrap", "100"], "--audit does not score"),
        (["a.pt", "--audit", "--fid_infinity"], "--audit does not score"),
        (["a.pt", "--audit", "--reference", "tests"], "--audit does not score"),
        (["--audit"], "name what is scored"),
        (["absent.pt", "--audit"], "there is no checkpoint absent.pt"),
        (["tests", "--audit"], "tests holds no checkpoint"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_flags_that_make_no_sense_beside_audit_are_answered_in_words(call, flags, words):
    fails(call("evaluate.py", *flags), words)
