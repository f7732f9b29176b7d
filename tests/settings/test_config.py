"""A run's configuration: to YAML and back, the name of its directory, and what differs between two."""

from pathlib import Path

import pytest

from settings.config import FIELDS, Config, default_run_dir, differences, to_yaml
from settings.layers import read_yaml

STORED = [name for name, f in FIELDS.items() if f.metadata["stored"]]


def read_back(folder, config):
    """The settings in a configuration's YAML."""
    (folder / "settings.yaml").write_text(to_yaml(config))
    return read_yaml(folder / "settings.yaml")


@pytest.mark.parametrize(
    "original",
    [
        Config(),
        Config(num_epochs=3),
        Config(d_norm=("weight", "layer"), betas=(0.0, 0.9), lr_G=1e-5, lr_D=3e-7, regularizer=("r1",)),
        Config(base_channels=8, regularizer=("orthonormal",), regularizer_weight=(1e-4,), g_sn=True, seed=2**32 - 1),
        Config(data_dir="ja: nein # 'ü'", inception_weights="1e3", dataset="folder", device="cuda:1"),
    ],
)
def test_yaml_takes_a_config_there_and_back(tmp_path, original):
    assert Config(**read_back(tmp_path, original)) == original


def test_yaml_leaves_out_where_a_run_lies(tmp_path):
    located = Config(run_dir="somewhere", config="some.yaml", resume="elsewhere")
    assert set(read_back(tmp_path, located)) | {"num_epochs"} == set(STORED)


def test_the_default_run_directory_is_named_after_what_is_trained():
    assert default_run_dir(Config()) == Path("runs/digits_dcgan_hinge_spectral_seed0")
    clipped = Config(dataset="cifar10", loss="wasserstein", d_norm=("none",), regularizer=("weight_clipping",), seed=3)
    assert default_run_dir(clipped) == Path("runs/cifar10_dcgan_wasserstein_none-weight_clipping_seed3")


def test_differences_name_each_setting_that_says_what_a_run_is():
    before, after = Config(), Config(loss="bce", betas=(0.0, 0.9), run_dir="elsewhere")
    assert differences(before, after) == {"loss": ("hinge", "bce"), "betas": ([0.5, 0.999], [0.0, 0.9])}
    assert differences(before, before) == {}


def test_differences_give_everyones_value_where_two_of_many_differ():
    many = Config(), Config(loss="bce"), Config(seed=3, loss="bce")
    assert differences(*many) == {"loss": ("hinge", "bce", "bce"), "seed": (0, 0, 3)}
