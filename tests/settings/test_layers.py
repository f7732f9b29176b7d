"""Settings from outside: precedence, and the checks of YAML."""

import re

import pytest
from helpers import yaml_file

from settings.config import Config, stored
from settings.layers import check_settings, read_yaml, resolve
from training.checkpoints.resume import named_preset
from utils.errors import UserError

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
        with pytest.raises(UserError, match=rf"replaces lr_cosine, .*: give {left} too"):
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


def test_a_network_without_a_preset_gets_the_size_and_the_channels_of_the_data_set(presets):
    yaml_file(presets, "image_size: 8\nchannels: 1\nlr_G: 0.1\n", "digits_dcgan.yaml")
    found, preset = resolve({"model": "mlp"})
    assert (preset, found) == (None, Config(model="mlp", image_size=8, channels=1))
    told = "none of mlp for digits: 8 pixels in grey, and defaults for settings not given"
    assert named_preset(found, preset) == told
    assert resolve({"model": "mlp", "image_size": 16})[0].image_size == 16
    assert resolve({"model": "mlp", "dataset": "mnist"})[0] == Config(model="mlp", dataset="mnist")


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


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [
        ("lr_g", "lr_G"),
        ("batchsize", "batch_size"),
        ("zdim", "z_dim"),
        ("learning_rate", "lr_G or lr_D"),
        ("Learning-Rate", "lr_G or lr_D"),
        ("epochs", "num_epochs"),
        ("steps", "total_steps"),
        ("nz", "z_dim"),
    ],
)
def test_an_unknown_key_names_the_file_the_key_and_a_suggestion(tmp_path, key, suggestion):
    path = yaml_file(tmp_path, f"{key}: 1\n")
    with pytest.raises(UserError, match=f"{re.escape(str(path))}.*'{key}'.*did you mean {suggestion}"):
        read_yaml(path)


def test_a_key_that_resembles_none_is_told_where_the_settings_are_listed(tmp_path):
    with pytest.raises(UserError, match=r"unknown setting 'qqqq'; python main.py --help lists all settings$"):
        read_yaml(yaml_file(tmp_path, "qqqq: 1\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr_G: 2e-4x", "lr_G must be a number, not '2e-4x'"),
        ("lr_G: 1e-4\nseed: 2\nlr_G: 1e-3", "not valid YAML: lr_G is in it twice"),
        ("z_dim: '1e999'", "z_dim must be a whole number, not inf"),
        ("dataset: minst", r"dataset must be one of .*, not 'minst'; did you mean mnist\?"),
        ("d_norm: spectral_norm", r"not 'spectral_norm'; did you mean spectral\?"),
        ("loss: hinge_loss", r"not 'hinge_loss'; did you mean hinge\?"),
        ("augment_p: adaptve", r"a number or adaptive, not 'adaptve'; did you mean adaptive\?"),
        ("regularizer: wgan-gp", r"not 'wgan-gp'; did you mean gradient_penalty\?"),
        ("loss: no", "loss must be one of bce, .*, not False"),
        ("lr_G: fast", "lr_G must be a number, not 'fast'"),
        ("lr_G: true", "lr_G must be a number, not True"),
        ("lr_G: 0", "lr_G must be more than 0"),
        ("lr_G: -1.0e-4", "lr_G must be more than 0"),
        ("lr_G: .nan", "lr_G"),
        ("lr_G: .inf", "lr_G must be at most 9007199254740992, not inf"),
        ("lr_G: null", "lr_G must be a number"),
        ("seed: 1.5", "seed must be a whole number, not 1.5"),
        ("seed: true", "seed must be a whole number, not True"),
        ("seed: -1", "seed must be at least 0"),
        ("seed: 4294967296", "seed must be at most 4294967295"),
        ("g_sn: 1", "g_sn must be true or false, not 1"),
        ("g_sn: maybe", "g_sn must be true or false, not 'maybe'"),
        ("loss: hing", "loss must be one of bce, hinge, .*, relativistic, not 'hing'; did you mean hinge"),
        ("loss: [hinge]", r"loss must be one of .*, not \['hinge'\]"),
        ("image_size: 33", "image_size must be one of 8, 16, 32, 48, 64, 128, not 33"),
        ("d_norm: [spectral, group]", "d_norm must be one of none, spectral, weight, batch, layer, not 'group'"),
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
        ("lr_G: 1e-4", {"lr_G": 0.0001}),
        ("betas: 0.5, 9e-1", {"betas": (0.5, 0.9)}),
        ("z_dim: '32'", {"z_dim": 32}),
        ("total_steps: 1e5", {"total_steps": 100_000}),
        ("seed: 1.0", {"seed": 1}),
        ("lr_cosine: [1e-3, 1e-4, 9e6]", {"lr_cosine": (1e-3, 1e-4, 9e6)}),
        ("augment: no", {"augment": ("none",)}),
        ("d_norm: [off]", {"d_norm": ("none",)}),
        ("regularizer: null", {"regularizer": ("none",)}),
        ("amp: off", {"amp": "none"}),
        ("conditional: 'No'", {"conditional": "none"}),
        ("attention: none", {"attention": None}),
        ("cache_dir: off", {"cache_dir": None}),
        ("num_epochs: none\ntotal_steps: 7", {"num_epochs": None, "total_steps": 7}),
        ("init_from: none", {"init_from": "none"}),  # which may be a file
        ("d_norm: spectral,batch", {"d_norm": ("spectral", "batch")}),
        ("d_norm: [Spectral, BATCH]", {"d_norm": ("spectral", "batch")}),
        ("dataset: MNIST", {"dataset": "mnist"}),
        ("dataset: Fashion-MNIST", {"dataset": "fashion_mnist"}),
        ("augment_p: Adaptive", {"augment_p": "adaptive"}),
        ("mirror: 'yes'", {"mirror": True}),
        ("eval_kid: off", {"eval_kid": False}),
    ],
)
def test_a_good_line_of_yaml_becomes_a_value_of_the_settings_type(tmp_path, text, settings):
    found = read_yaml(yaml_file(tmp_path, text))
    assert found == settings
    assert [type(value) for value in found.values()] == [type(value) for value in settings.values()]


def test_a_missing_yaml_file_is_named_and_so_is_one_with_nearly_its_name(tmp_path):
    with pytest.raises(UserError, match=r"absent.yaml: No such file"):
        read_yaml(tmp_path / "absent.yaml")
    yaml_file(tmp_path, "seed: 5\n", "mine.yaml")
    with pytest.raises(UserError, match=rf"there is no {tmp_path}/mine.yml; did you mean {tmp_path}/mine.yaml\?$"):
        resolve({"config": str(tmp_path / "mine.yml")})
    with pytest.raises(UserError, match=r"there is no digits_mlp; did you mean configs/digits_mlp.yaml\?$"):
        resolve({"config": "digits_mlp"})


def test_the_projects_configs_are_found_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve({"config": "configs/mnist_dcgan64.yaml"})[0].image_size == 64
    (tmp_path / "configs").mkdir()
    yaml_file(tmp_path / "configs", "image_size: 16\n", "mnist_dcgan64.yaml")
    assert resolve({"config": "configs/mnist_dcgan64.yaml"})[0].image_size == 16  # one's own goes first


@pytest.mark.parametrize("name", ["z_dim", "batch_size", "total_steps", "keep", "num_epochs"])
def test_a_whole_number_that_nothing_can_hold_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be at most"):
        check_settings({name: 10**400})
