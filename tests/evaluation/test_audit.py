"""Audits of a discriminator, and evaluate.py --audit: what is measured and bounded, what it leaves, what is refused."""

import itertools
import json
import random
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from helpers import dense, fails
from torch import nn

import train
from datasets.sources import load_split
from evaluation.discriminator import lipschitz
from models import build_models, spectral_norm
from models.normalization import BatchNorm, LayerNorm, iteration
from models.resampling import Downsample
from settings.layers import resolve
from training import monitor
from training.checkpoints import checkpoint
from training.checkpoints.run_dir import latest
from training.state import State

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


@pytest.mark.parametrize(
    ("model", "d_norm"),
    [*itertools.product(["dcgan", "resnet", "mlp"], NORMS), ("r3gan", "none"), ("r3gan", "spectral")],
    ids=str,
)
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


@pytest.mark.parametrize("model", ["dcgan", "resnet", "mlp", "r3gan"])
def test_an_audit_has_the_norm_of_each_layer_as_it_maps_its_input(model):
    D = moved(model, "spectral" if model == "r3gan" else "weight", base_channels=2)
    found = lipschitz.audit(D, *images())
    D.eval().double()
    for layer in found["layers"]:
        module, zero = D.get_submodule(layer["name"]), torch.zeros(1, *layer["input"], dtype=torch.float64)
        constant = module(zero).detach()
        matrix = dense(lambda x: module(x) - constant, layer["input"])  # noqa: B023
        assert layer["operator_norm"] == pytest.approx(torch.linalg.svdvals(matrix)[0].item(), rel=1e-5)


def test_the_bound_of_r3gans_downsampling_is_the_norm_of_its_filter_far_from_borders():
    matrix = dense(Downsample().double(), (1, 32, 32))
    assert 0.49 < torch.linalg.svdvals(matrix)[0].item() <= lipschitz.lipschitz(Downsample(), {}, {}) == 0.5


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
    assert lines[2] == "1: scales by at most 1"
    assert lines[3] == "gradient norm, real: mean 2, maximum 2"
    assert "slope is at most 2 (" in lines[-1] and lines[-1].endswith("seen at 220 points is 2")


# ---- evaluate.py --audit -------------------------------------------------------------------------------------------


@pytest.fixture
def run(unscored, tmp_path):
    return Path(copytree(unscored, tmp_path / "run"))


def test_evaluate_audits_a_runs_newest_checkpoint_or_the_one_that_is_named(run, call, data_dir):
    done = call("evaluate.py", run, "--audit", "--data_dir", data_dir)
    assert done.returncode == 0, done.stderr
    assert f"written to {run / 'audit.json'}" in done.stdout and "D's slope is at most" in done.stdout
    found = json.loads((run / "audit.json").read_text())
    assert (found["step"], found["dataset"], found["d_norm"], found["num_images"]) == (4, "digits", ["spectral"], 512)
    assert found["checkpoint"] == str(run / "checkpoints" / "step_000004.pt")
    assert 0 < found["lower_bound"] < found["upper_bound"] and len(found["layers"]) == 8
    D = checkpoint.load(run / "checkpoints" / "step_000004.pt").discriminator()
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
    assert json.loads((run / "audit_step_000004_no_ema.json").read_text())["ema"] is False, done.stderr


def test_an_exported_generator_has_no_discriminator_to_audit(run, call, tmp_path):
    exported = tmp_path / "G.pt"
    assert call("generate.py", run, "--export", exported).returncode == 0
    fails(call("evaluate.py", exported, "--audit"), "G.pt is an exported generator without a discriminator")


def test_a_checkpoint_with_broken_or_foreign_weights_of_d_is_refused(run, call, data_dir):
    path = latest(run)
    content = checkpoint.read(path)
    name, bias = next((name, value) for name, value in content["D"].items() if name.endswith("bias"))
    for value, words in ((bias * torch.nan, "weights of D are not finite"), (bias[:1], "its discriminator does not")):
        content["D"][name] = value.clone()
        torch.save(content, path)
        fails(call("evaluate.py", path, "--audit", "--data_dir", data_dir), path.name, words)
    assert not (run / "audit.json").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--samples", "x.npz", "--audit"], "--samples: leave out --save_samples, --audit and --no_ema"),
        (["a.pt", "--audit", "--save_samples", "x.npz"], "--audit does not score"),
        (["a.pt", "--audit", "--bootstrap", "100"], "--audit does not score"),
        (["a.pt", "--audit", "--fid_infinity"], "--audit does not score"),
        (["a.pt", "--audit", "--reference", "tests"], "--audit does not score"),
        (["--audit"], "name what to score"),
        (["absent.pt", "--audit"], "there is no checkpoint absent.pt"),
        (["tests", "--audit"], "tests holds no checkpoint"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_flags_that_make_no_sense_beside_audit_are_answered_in_words(call, flags, words):
    fails(call("evaluate.py", *flags), words)
