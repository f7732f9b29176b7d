"""The presets in configs/: each makes networks, and says what its paper does."""

import itertools

import pytest
import torch
from helpers import ROOT, yaml_file

from models import build_models
from settings.config import FIELDS, stored
from settings.layers import read_yaml, resolve
from utils.errors import UserError

PRESETS = {
    f"{dataset}_{model}": {"dataset": dataset, "model": model}
    for dataset, model in itertools.product(*(FIELDS[name].metadata["choices"] for name in ("dataset", "model")))
}


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_in_configs_resolves_to_networks_that_can_be_built(path):
    resolved, preset = resolve(PRESETS.get(path.stem, {"config": str(path)}))
    assert {name: getattr(resolved, name) for name in read_yaml(path)} == read_yaml(path)
    if path.stem in PRESETS:
        assert preset == path
    shape = ("image_size", "channels", "z_dim", "base_channels", "arch_variant")
    with torch.device("meta"):  # shapes alone
        G, D = build_models(resolved.model, d_norm="none", **{name: getattr(resolved, name) for name in shape})
        images = G(torch.zeros(2, resolved.z_dim))
        assert images.shape == (2, resolved.channels, resolved.image_size, resolved.image_size)
        assert D(images).shape == (2, 1)


def test_every_data_set_has_a_preset_for_every_model():
    assert [name for name in PRESETS if not (ROOT / "configs" / f"{name}.yaml").exists()] == []


ADAM_C = {"optimizer": "adam", "lr_G": 2e-4, "lr_D": 2e-4, "betas": (0.5, 0.999), "n_dis": 1}  # of the paper's table 1
ADAM_B = ADAM_C | {"lr_G": 1e-4, "lr_D": 1e-4}
RESNET = ADAM_C | {"betas": (0.0, 0.9), "n_dis": 5, "batch_size": 64, "batch_size_G": 128, "lr_decay": "linear"}
SN_HINGE = {"loss": "hinge", "d_norm": ("spectral",), "regularizer": ("none",)}
GP = {"loss": "wasserstein", "d_norm": ("none",), "regularizer": ("gradient_penalty",), "regularizer_weight": (10.0,)}
GP |= ADAM_B | {"betas": (0.0, 0.9), "n_dis": 5}
CLIPPED = {
    "loss": "wasserstein",
    "d_norm": ("none",),
    "regularizer": ("weight_clipping",),
    "regularizer_weight": (0.01,),
}
CLIPPED |= {"optimizer": "rmsprop", "lr_G": 5e-5, "lr_D": 5e-5, "n_dis": 5}


@pytest.mark.parametrize(
    ("flags", "values"),
    [
        ({"dataset": "cifar10", "model": "resnet"}, SN_HINGE | RESNET | {"total_steps": 50_000, "image_size": 32}),
        ({"dataset": "cifar10", "model": "dcgan"}, SN_HINGE | ADAM_C | {"batch_size": 64, "image_size": 32}),
        ({"dataset": "stl10", "model": "dcgan"}, SN_HINGE | ADAM_B | {"batch_size": 64, "image_size": 48}),
        ({"dataset": "stl10", "model": "resnet"}, SN_HINGE | RESNET | {"image_size": 48}),
        (
            {"dataset": "cifar10", "model": "r3gan"},
            {
                "base_channels": 768,
                "z_dim": 64,
                "batch_size": 512,
                "loss": "relativistic",
                "regularizer": ("r1_r2",),
                "lr_cosine": (2e-4, 5e-5, 2e7),
                "gamma_cosine": (0.05, 0.005, 2e7),
                "beta2_cosine": (0.9, 0.99, 2e7),
                "ema_half_life_cosine": (0.0, 5e6, 2e7),
            },
        ),
        ({"config": "cifar10_resnet_1k_eval"}, SN_HINGE | RESNET | {"total_steps": 50_000, "eval_every": 1000}),
        ({"config": "cifar10_dcgan_wgan"}, CLIPPED | {"model": "dcgan"}),
        ({"config": "cifar10_dcgan_wgan_gp"}, GP | {"model": "dcgan"}),
        ({"config": "cifar10_resnet_wgan_gp"}, GP | {"model": "resnet"}),
        ({"config": "cifar10_dcgan_standard"}, {"loss": "bce", "d_norm": ("batch",), "model": "dcgan"}),
        ({"config": "mnist_dcgan64"}, {"image_size": 64, "num_epochs": 50, "channels": 1, "model": "dcgan"}),
        (
            {"config": "mnist_mlp"},
            {"dataset": "mnist", "model": "mlp", "loss": "bce", "d_norm": ("none",), "channels": 1},
        ),
    ],
)
def test_the_presets_and_experiments_have_the_literatures_values(flags, values):
    if "config" in flags:
        flags = {"config": str(ROOT / "configs" / f"{flags['config']}.yaml")}
    resolved, _ = resolve(flags)
    assert {name: getattr(resolved, name) for name in values} == values


def test_a_size_has_presets_of_its_own_and_a_file_may_ask_for_it(presets, tmp_path):
    taken = yaml_file(presets, "seed: 1\n", "mnist_dcgan_small.yaml")
    yaml_file(presets, "seed: 2\n", "mnist_dcgan.yaml")
    asked = yaml_file(tmp_path, "dataset: mnist\nsize: small\nz_dim: 7\n", "mine.yaml")
    config, preset = resolve({"config": str(asked)})
    assert (config.seed, config.z_dim, preset) == (1, 7, taken)
    with pytest.raises(UserError, match=r"digits_dcgan_small.yaml; presets of this size: mnist_dcgan_small.yaml"):
        resolve({"size": "small"})
    assert "size" not in stored(config)
