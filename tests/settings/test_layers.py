"""Settings from outside: precedence, the checks of YAML, and the presets in configs/."""

import itertools
import re

import pytest
import torch
from helpers import ROOT

from models import build_models
from settings.config import FIELDS, Config, stored
from settings.layers import check_settings, read_yaml, resolve
from utils.errors import UserError

PRESETS = {
    f"{dataset}_{model}": {"dataset": dataset, "model": model}
    for dataset, model in itertools.product(*(FIELDS[name].metadata["choices"] for name in ("dataset", "model")))
}


def yaml_file(folder, text, name="settings.yaml"):
    path = folder / name
    path.write_text(text)
    return path


# ---- Precedence ----------------------------------------------------------------------------------------------------


def test_a_flag_goes_over_config_over_the_preset_over_the_default(presets, tmp_path):
    preset = yaml_file(presets, "z_dim: 16\nn_dis: 2\nseed: 2\n", "digits_dcgan.yaml")
    experiment = yaml_file(tmp_path, "n_dis: 3\nseed: 3\n")
    resolved, taken = resolve({"config": str(experiment), "seed": 4})
    assert taken == preset
    assert (resolved.batch_size, resolved.z_dim, resolved.n_dis, resolved.seed) == (64, 16, 3, 4)


def test_what_says_the_same_in_another_way_replaces_what_an_earlier_layer_said(presets):
    lines = "regularizer: r1\nlr_cosine: [1.0e-3, 1.0e-4, 90]\ngamma_cosine: [1, 0.5, 90]\n"
    yaml_file(presets, lines + "ema_half_life_cosine: [0, 50, 90]\n", "digits_dcgan.yaml")
    assert resolve({})[0].lr_cosine == (1e-3, 1e-4, 90.0)
    found, _ = resolve(
        {"lr_G": 3e-4, "lr_D": 3e-4, "ema_decay": 0.5, "regularizer": ("r1",), "regularizer_weight": (2.0,)}
    )
    assert (found.lr_cosine, found.ema_half_life_cosine, found.gamma_cosine) == (None, None, None)
    assert (found.lr_G, found.ema_decay, found.regularizer_weight) == (3e-4, 0.5, (2.0,))
    found, _ = resolve({"regularizer": ("none",)})  # whose weight it was
    assert found.gamma_cosine is None and found.lr_cosine
    assert resolve({"regularizer": ("r1_r2",)})[0].gamma_cosine == (1.0, 0.5, 90.0)  # the weight of any penalty
    yaml_file(presets, "lr_G: 3.0e-4\nlr_decay: linear\nregularizer: r1\nregularizer_weight: 3\n", "digits_dcgan.yaml")
    found, _ = resolve({"lr_cosine": (1e-3, 1e-4, 90.0)})
    assert (found.lr_G, found.lr_decay, found.regularizer_weight) == (Config().lr_G, "none", (3.0,))
    assert resolve({"regularizer": ("r1",)})[0].regularizer_weight == (3.0,)  # nothing changes
    assert resolve({"regularizer": ("r2",)})[0].regularizer_weight is None


def test_one_rate_alone_does_not_leave_the_other_at_a_default_that_nobody_named(presets):
    yaml_file(presets, "lr_cosine: [1.0e-3, 1.0e-4, 90]\n", "digits_dcgan.yaml")
    for given, left in (({"lr_G": 1e-3}, "lr_D"), ({"lr_decay": "linear"}, "lr_G and lr_D")):
        with pytest.raises(UserError, match=rf"in the place of lr_cosine, .*: give {left} too"):
            resolve(given)
    found, _ = resolve({"lr_G": 1e-3, "lr_D": 2e-3, "lr_decay": "linear"})
    assert (found.lr_G, found.lr_D, found.lr_decay, found.lr_cosine) == (1e-3, 2e-3, "linear", None)


def test_an_optional_setting_of_several_values_takes_as_many_or_none():
    assert check_settings({"lr_cosine": [1, 0.5, 90]}) == {"lr_cosine": (1.0, 0.5, 90.0)}
    assert check_settings({"lr_cosine": None}) == {"lr_cosine": None}
    with pytest.raises(ValueError, match="lr_cosine takes 3 values, not 2"):
        check_settings({"lr_cosine": [1, 0.5]})


def test_without_a_preset_the_defaults_hold(presets):
    assert resolve({}) == (Config(), None)


def test_the_preset_is_the_one_of_the_dataset_and_model_that_win(presets, tmp_path):
    yaml_file(presets, "seed: 1\n", "mnist_dcgan.yaml")
    yaml_file(presets, "seed: 2\n", "mnist_mlp.yaml")
    experiment = yaml_file(tmp_path, "dataset: mnist\nmodel: dcgan\n")
    assert resolve({"config": str(experiment)})[0].seed == 1
    assert resolve({"config": str(experiment), "model": "mlp"})[0].seed == 2


def test_a_later_layers_total_steps_replace_an_earlier_layers_num_epochs(presets, tmp_path):
    yaml_file(presets, "num_epochs: 5\n", "digits_dcgan.yaml")
    resolved, _ = resolve({"total_steps": 7})
    assert (resolved.total_steps, resolved.num_epochs) == (7, None)


def test_a_later_layers_num_epochs_win_over_an_earlier_layers_total_steps(presets, tmp_path):
    yaml_file(presets, "total_steps: 7\n", "digits_dcgan.yaml")
    resolved, _ = resolve({"num_epochs": 5})
    assert resolved.num_epochs == 5
    assert "total_steps" not in stored(resolved)


def test_one_layer_cannot_give_both_total_steps_and_num_epochs(tmp_path):
    with pytest.raises(UserError, match=r"settings.yaml: total_steps and num_epochs exclude each other"):
        read_yaml(yaml_file(tmp_path, "total_steps: 7\nnum_epochs: 5\n"))


# ---- Checks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "suggestion"), [("lr_g", "lr_G"), ("batchsize", "batch_size"), ("zdim", "z_dim")])
def test_an_unknown_key_names_the_file_the_key_and_a_suggestion(tmp_path, key, suggestion):
    path = yaml_file(tmp_path, f"{key}: 1\n")
    with pytest.raises(UserError, match=f"{re.escape(str(path))}.*'{key}'.*did you mean {suggestion}"):
        read_yaml(path)


def test_a_key_that_resembles_none_gets_the_list_of_settings(tmp_path):
    with pytest.raises(UserError, match=r"'qqqq'; the settings are dataset, .*num_samples"):
        read_yaml(yaml_file(tmp_path, "qqqq: 1\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr_G: 2e-4", r"lr_G must be a number, not '2e-4' \(YAML reads 2e-4 as text; write 2.0e-4"),
        ("lr_G: fast", "lr_G must be a number, not 'fast'"),
        ("lr_G: true", "lr_G must be a number, not True"),
        ("lr_G: 0", "lr_G must be more than 0"),
        ("lr_G: -1.0e-4", "lr_G must be more than 0"),
        ("lr_G: .nan", "lr_G"),
        ("lr_G: .inf", "lr_G must be at most 9007199254740992, not inf"),
        ("lr_G: null", "lr_G must be a number"),
        ("seed: 1.0", "seed must be a whole number, not 1.0"),
        ("seed: true", "seed must be a whole number, not True"),
        ("seed: -1", "seed must be at least 0"),
        ("seed: 4294967296", "seed must be at most 4294967295"),
        ("g_sn: 1", "g_sn must be true or false, not 1"),
        ("g_sn: 'yes'", "g_sn must be true or false, not 'yes'"),
        ("loss: hing", "loss 'hing' is not one of bce, .*; did you mean hinge"),
        ("loss: [hinge]", "loss must be text"),
        ("image_size: 33", "image_size 33 is not one of 8, 16, 32, 48, 64, 128"),
        ("d_norm: [spectral, group]", "d_norm 'group' is not one of none, spectral, weight, batch, layer"),
        ("d_norm: []", "d_norm takes at least one value"),
        ("betas: [0.5]", "betas takes 2 values, not 1"),
        ("betas: [0.5, 1.0]", "betas must be less than 1"),
        ("betas: [.nan, 0.9]", "betas"),
        ("batch_size: 1", "batch_size must be at least 2"),
        ("ema_decay: 1", "ema_decay must be less than 1"),
        ("num_samples: 99", "num_samples must be at least 100"),
        ("- seed", "settings are `name: value` lines, not a list"),
        ("seed: [", "not valid YAML"),
        ("seed: 2024-13-45", "not valid YAML"),
        ("lr_G: !!float x", "not valid YAML"),
        (f"lr_G: {'1' * 400}", "lr_G must be at most 9007199254740992, not 1111"),
        (f"lr_G: {'9' * 5000}", "not valid YAML"),
        ("config: other.yaml", "config is a flag only"),
        ("seed: !!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_a_bad_line_of_yaml_is_refused_with_the_file_and_the_reason(tmp_path, text, message):
    path = yaml_file(tmp_path, text)
    with pytest.raises(UserError, match=message) as error:
        read_yaml(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("", {}),
        ("d_norm: spectral", {"d_norm": ("spectral",)}),
        ("d_norm: [spectral, batch]", {"d_norm": ("spectral", "batch")}),
        ("betas: [0, 0.9]", {"betas": (0.0, 0.9)}),
        ("lr_G: 2.0e-4", {"lr_G": 0.0002}),
        ("lr_G: 1", {"lr_G": 1.0}),
        ("base_channels: null", {"base_channels": None}),
        ("g_sn: true", {"g_sn": True}),
    ],
)
def test_a_good_line_of_yaml_becomes_a_value_of_the_settings_type(tmp_path, text, settings):
    found = read_yaml(yaml_file(tmp_path, text))
    assert found == settings
    assert [type(value) for value in found.values()] == [type(value) for value in settings.values()]


def test_a_missing_yaml_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"absent.yaml: No such file"):
        read_yaml(tmp_path / "absent.yaml")


@pytest.mark.parametrize("name", ["z_dim", "batch_size", "total_steps", "keep", "num_epochs"])
def test_a_whole_number_that_nothing_can_hold_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be at most"):
        check_settings({name: 10**400})


# ---- Presets -------------------------------------------------------------------------------------------------------


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
    with pytest.raises(UserError, match=r"no configs/digits_dcgan_small.yaml, but mnist_dcgan_small.yaml"):
        resolve({"size": "small"})
    assert "size" not in stored(config)
