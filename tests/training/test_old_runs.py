"""Runs of before the project had its wings (commit 19d09fc), in old_runs/, go on as they did there."""

import shutil
from pathlib import Path

import pytest
import torch

import train
from training import prepare
from training.checkpoints import checkpoint
from training.reporting.logger import read_stats

OLD_RUNS = Path(__file__).parent / "old_runs"  # each with a checkpoint of step 3 and the statistics of 6 steps


@pytest.mark.parametrize("model", ["dcgan", "resnet", "mlp"])
def test_an_old_checkpoint_goes_on_as_it_did(tmp_path, model):
    shutil.copytree(OLD_RUNS / model, tmp_path / "run")
    expected = read_stats(tmp_path / "run")
    path = train.train(prepare({"resume": str(tmp_path / "run")}))
    assert checkpoint.read(path)["step"] == 6
    found = read_stats(tmp_path / "run")
    assert [line["step"] for line in found] == [1, 2, 3, 4, 5, 6]
    for line, old in zip(found, expected):
        # The same bits on one machine; other processors round otherwise. The gradient's norm is the most sensitive: it
        # jumps where an activation changes its sign, and the networks have few.
        assert line == {key: pytest.approx(value, rel=1e-3, abs=1e-5) for key, value in old.items()} | {
            "grad_norm_input": pytest.approx(old["grad_norm_input"], rel=0.2),
            "seconds_per_step": line["seconds_per_step"],
        }


@pytest.mark.parametrize("model", ["dcgan", "resnet", "mlp"])
def test_an_old_checkpoint_gives_a_generator(model):
    G = checkpoint.load_generator(OLD_RUNS / model)
    images = G(torch.randn(3, G.z_dim))
    assert images.shape == (3, 1, 8, 8) and images.abs().max() <= 1
