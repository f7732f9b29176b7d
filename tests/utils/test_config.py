"""Settings: precedence, checks, combinations, the parser and the YAML round trip."""

import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models import build_models
from utils import combinations, config
from utils.config import FIELDS, Config, comparison, differences, to_yaml
from utils.errors import UserError
from utils.parser import parse_args
from utils.settings import check_settings, read_yaml, resolve

ROOT = Path(config.__file__).resolve().parent.parent
STORED = [name for name, f in FIELDS.items() if f.metadata["stored"]]


@pytest.fixture
def presets(tmp_path, monkeypatch):
    """An empty folder in the place of configs/."""
    folder = tmp_path / "presets"
    folder.mkdir()
    monkeypatch.setattr("utils.settings.CONFIGS_DIR", folder)
    return folder


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
    assert "total_steps" not in config.stored(resolved)


def test_one_layer_cannot_give_both_total_steps_and_num_epochs(tmp_path):
    with pytest.raises(UserError, match=r"settings.yaml: total_steps and num_epochs exclude each other"):
        read_yaml(yaml_file(tmp_path, "total_steps: 7\nnum_epochs: 5\n"))
    with pytest.raises(UserError, match="--total_steps and --num_epochs exclude each other"):
        parse_args("", ["--total_steps", "7", "--num_epochs", "5"])


# ---- Checks of YAML and flags --------------------------------------------------------------------------------------


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
        ("lr_G: .inf", "lr_G must be finite"),
        ("lr_G: null", "lr_G must be a number"),
        ("seed: 1.0", "seed must be a whole number, not 1.0"),
        ("seed: true", "seed must be a whole number, not True"),
        ("seed: -1", "seed must be at least 0"),
        ("seed: 4294967296", "seed must be at most 4294967295"),
        ("g_sn: 1", "g_sn must be true or false, not 1"),
        ("g_sn: 'yes'", "g_sn must be true or false, not 'yes'"),
        ("loss: hing", "loss 'hing' is not one of bce, hinge, wasserstein, lsgan; did you mean hinge"),
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
        (f"lr_G: {'1' * 400}", "lr_G must be finite"),
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


def test_flags_are_read_with_the_settings_types():
    typed = "--d_norm spectral batch --betas 0 0.9 --lr_G 2e-4 --g_sn --no_tensorboard --seed 3 --dry_run"
    flags, dry_run = parse_args("", typed.split())
    expected = {"d_norm": ("spectral", "batch"), "betas": (0.0, 0.9), "lr_G": 2e-4, "g_sn": True, "tensorboard": False}
    assert flags == {**expected, "seed": 3}
    assert dry_run is True
    assert parse_args("", []) == ({}, False)


@pytest.mark.parametrize("argv", ["--lr_G nan", "--lr_G inf", "--lr_G -1", "--seed -1", "--batch_size 1"])
def test_a_flag_out_of_range_is_refused_with_its_name(argv):
    with pytest.raises(UserError, match=f"^{argv.split()[0]} must be "):
        parse_args("", argv.split())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--lr_g 1", "did you mean --lr_G"),
        ("--batchsize=4", "did you mean --batch_size"),
        ("--d-norm none", "did you mean --d_norm"),
        ("--loss hing", "hinge"),
        ("--image_size 33", "48"),
        ("--seed x", "--seed"),
        ("--betas 0.5", "--betas"),
        ("--data d", "unrecognized"),  # no abbreviations
    ],
)
def test_a_mistyped_flag_exits_with_code_2_and_says_what_was_meant(capsys, argv, message):
    with pytest.raises(SystemExit) as stop:
        parse_args("", argv.split())
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_help_lists_every_setting(capsys):
    with pytest.raises(SystemExit) as stop:
        parse_args("", ["--help"])
    assert stop.value.code == 0
    listed = set(re.findall(r"^ +--(\w+)", capsys.readouterr().out, re.MULTILINE))
    assert set(FIELDS) | {"dry_run"} <= listed


def test_importing_the_settings_does_not_import_torch():
    command = "import sys, utils.parser; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


# ---- Combinations --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ({"d_norm": ("spectral", "weight")}, "exclude each other: both rescale the weights"),
        ({"d_norm": ("batch", "layer")}, "exclude each other: both normalise the features"),
        ({"d_norm": ("none", "batch")}, "none stands alone"),
        ({"d_norm": ("spectral", "spectral")}, "different names"),
        (
            {"regularizer": "weight_clipping", "d_norm": ("spectral",)},
            "with d_norm spectral: the normalization divides",
        ),
        ({"regularizer": "weight_clipping", "d_norm": ("weight",)}, "with d_norm weight: the normalization divides"),
        ({"regularizer": "weight_clipping", "d_norm": ("layer", "spectral")}, "with d_norm spectral: the normal"),
        ({"regularizer": "gradient_penalty", "d_norm": ("batch",)}, "batch normalization makes D's output depend"),
        ({"regularizer": "gradient_penalty", "d_norm": ("spectral", "batch")}, "makes D's output depend"),
        ({"regularizer": "r1", "d_norm": ("batch",)}, "r1 makes no sense with d_norm batch"),
        ({"model": "resnet", "arch_variant": "paper"}, "arch_variant paper is for --model dcgan"),
        ({"model": "mlp", "arch_variant": "paper"}, "arch_variant paper is for --model dcgan"),
        ({"regularizer_weight": 1.0}, "regularizer_weight needs a regularizer"),
    ],
)
def test_a_senseless_combination_is_refused_with_its_reason(presets, flags, reason):
    with pytest.raises(UserError, match=reason):
        resolve(flags)


SENSIBLE = [
    *({"regularizer": "weight_clipping", "d_norm": (norm,)} for norm in ("none", "batch", "layer")),
    *({"regularizer": "gradient_penalty", "d_norm": (norm,)} for norm in ("none", "layer", "spectral", "weight")),
    *({"regularizer": "r1", "d_norm": (norm,)} for norm in ("none", "layer", "spectral")),
    *({"regularizer": "orthonormal", "d_norm": (norm,)} for norm in ("none", "batch", "spectral")),
    *({"d_norm": pair} for pair in itertools.product(("spectral", "weight"), ("batch", "layer"))),
    {"model": "dcgan", "arch_variant": "paper"},
    {"regularizer": "gradient_penalty", "d_norm": ("none",), "regularizer_weight": 5.0},
]


@pytest.mark.parametrize("flags", SENSIBLE, ids=lambda flags: "-".join(map(config.to_flag, flags.values())))
def test_a_sensible_combination_is_taken_as_it_is(presets, flags):
    resolved, _ = resolve(flags)
    assert {name: getattr(resolved, name) for name in flags} == flags


def test_warnings_name_an_unbounded_wasserstein_d_and_batch_norm_over_spectral_norm():
    (unbounded,) = combinations.warnings(Config(loss="wasserstein", d_norm=("none",)))
    assert "wasserstein" in unbounded
    (unsafe,) = combinations.warnings(Config(d_norm=("spectral", "batch")))
    assert "Lipschitz" in unsafe
    assert list(combinations.warnings(Config())) == []
    assert (
        list(combinations.warnings(Config(loss="wasserstein", d_norm=("none",), regularizer="gradient_penalty"))) == []
    )


# ---- Round trips and presets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "original",
    [
        Config(),
        Config(num_epochs=3),
        Config(d_norm=("weight", "layer"), betas=(0.0, 0.9), lr_G=1e-5, lr_D=3e-7, regularizer="r1"),
        Config(base_channels=8, regularizer="orthonormal", regularizer_weight=1e-4, g_sn=True, seed=2**32 - 1),
        Config(data_dir="ja: nein # 'ü'", inception_weights="1e3", dataset="folder", device="cuda:1"),
    ],
)
def test_yaml_takes_a_config_there_and_back(tmp_path, original):
    assert Config(**read_yaml(yaml_file(tmp_path, to_yaml(original)))) == original


def test_yaml_leaves_out_where_a_run_lies(tmp_path):
    located = Config(run_dir="somewhere", config="some.yaml", resume="elsewhere")
    assert set(read_yaml(yaml_file(tmp_path, to_yaml(located)))) | {"num_epochs"} == set(STORED)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_in_configs_resolves_to_networks_that_can_be_built(path):
    pairs = itertools.product(FIELDS["dataset"].metadata["choices"], FIELDS["model"].metadata["choices"])
    names = {f"{dataset}_{model}": {"dataset": dataset, "model": model} for dataset, model in pairs}
    resolved, preset = resolve(names.get(path.stem, {"config": str(path)}))
    assert {name: getattr(resolved, name) for name in read_yaml(path)} == read_yaml(path)
    if path.stem in names:
        assert preset == path
    shape = ("image_size", "channels", "z_dim", "base_channels", "arch_variant")
    with torch.device("meta"):  # shapes alone
        G, D = build_models(resolved.model, d_norm="none", **{name: getattr(resolved, name) for name in shape})
        images = G(torch.zeros(2, resolved.z_dim))
        assert images.shape == (2, resolved.channels, resolved.image_size, resolved.image_size)
        assert D(images).shape == (2, 1)


def test_every_data_set_has_a_preset_for_every_model():
    pairs = itertools.product(FIELDS["dataset"].metadata["choices"], FIELDS["model"].metadata["choices"])
    assert [pair for pair in pairs if not (ROOT / "configs" / "{}_{}.yaml".format(*pair)).exists()] == []


ADAM_C = {"optimizer": "adam", "lr_G": 2e-4, "lr_D": 2e-4, "betas": (0.5, 0.999), "n_dis": 1}  # of the paper's table 1
ADAM_B = ADAM_C | {"lr_G": 1e-4, "lr_D": 1e-4}
RESNET = ADAM_C | {"betas": (0.0, 0.9), "n_dis": 5, "batch_size": 64, "batch_size_G": 128, "lr_decay": "linear"}
SN_HINGE = {"loss": "hinge", "d_norm": ("spectral",), "regularizer": "none"}
GP = {"loss": "wasserstein", "d_norm": ("none",), "regularizer": "gradient_penalty", "regularizer_weight": 10.0}
GP |= ADAM_B | {"betas": (0.0, 0.9), "n_dis": 5}
CLIPPED = {"loss": "wasserstein", "d_norm": ("none",), "regularizer": "weight_clipping", "regularizer_weight": 0.01}
CLIPPED |= {"optimizer": "rmsprop", "lr_G": 5e-5, "lr_D": 5e-5, "n_dis": 5}


@pytest.mark.parametrize(
    ("flags", "values"),
    [
        ({"dataset": "cifar10", "model": "resnet"}, SN_HINGE | RESNET | {"total_steps": 50_000, "image_size": 32}),
        ({"dataset": "cifar10", "model": "dcgan"}, SN_HINGE | ADAM_C | {"batch_size": 64, "image_size": 32}),
        ({"dataset": "stl10", "model": "dcgan"}, SN_HINGE | ADAM_B | {"batch_size": 64, "image_size": 48}),
        ({"dataset": "stl10", "model": "resnet"}, SN_HINGE | RESNET | {"image_size": 48}),
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


def test_the_default_run_directory_is_named_after_what_is_trained():
    assert config.default_run_dir(Config()) == Path("runs/digits_dcgan_hinge_spectral_seed0")
    clipped = Config(dataset="cifar10", loss="wasserstein", d_norm=("none",), regularizer="weight_clipping", seed=3)
    assert config.default_run_dir(clipped) == Path("runs/cifar10_dcgan_wasserstein_none-weight_clipping_seed3")


def test_differences_name_each_setting_that_says_what_a_run_is():
    before, after = Config(), Config(loss="bce", betas=(0.0, 0.9), run_dir="elsewhere")
    assert differences(before, after) == {"loss": ("hinge", "bce"), "betas": ([0.5, 0.999], [0.0, 0.9])}
    assert differences(before, before) == {}


def test_a_comparison_gives_everyones_value_where_two_differ():
    configs = {"a": Config(), "b": Config(loss="bce"), "c": Config(seed=3, loss="bce")}
    assert list(comparison(configs)) == ["loss: hinge (a), bce (b), bce (c)", "seed: 0 (a), 0 (b), 3 (c)"]
    assert list(comparison({"a": Config(), "b": Config()})) == []


@pytest.mark.parametrize("name", ["z_dim", "batch_size", "total_steps", "keep", "num_epochs"])
def test_a_whole_number_that_nothing_can_hold_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be at most"):
        check_settings({name: 10**400})
