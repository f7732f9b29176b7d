"""Runs of before the project had its wings (commit 19d09fc), in old_runs/, go on as they did there."""

import shutil
from pathlib import Path

import pytest
import torch
from helpers import go_on, rewrite, save_image, start

import train
from datasets import load_split
from training import prepare
from training.checkpoints import checkpoint
from training.reporting.logger import read_stats

NUMBERS = ("1", "2", "10")  # classes, which were in the order of their text
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


def numbered(tmp_path, **flags):
    """The Config of a new run of a step on two pictures of each of NUMBERS."""
    for name in NUMBERS:
        for i in range(2):
            save_image(tmp_path / "own" / name / f"{i}.png", (20 * int(name), i, 0))
    own = {"dataset": "folder", "data_dir": str(tmp_path / "own"), "image_size": 8, "model": "mlp", "total_steps": 1}
    return start(tmp_path, **own, **flags)


def test_a_run_whose_classes_are_ordered_as_text_keeps_that_order(tmp_path, no_pictures):
    train.train(numbered(tmp_path, conditional="projection", class_order="text"))
    path = go_on(tmp_path, total_steps=2)
    loaded = checkpoint.load_trained(path)
    assert loaded.classes.names == load_split(loaded.config).classes == ("1", "10", "2")
    assert "class_order" not in checkpoint.read(path)["config"]  # as in a run of then
    assert load_split(prepare({"dataset": "folder", "data_dir": str(tmp_path / "own")})).classes == NUMBERS


@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 2, 2], [-1] * 6])
def test_a_run_that_uses_no_labels_goes_on_whatever_they_were(tmp_path, no_pictures, labels):
    images = load_split(numbered(tmp_path))._replace(labels=torch.tensor(labels), origin=None)
    path = train.train(numbered(tmp_path))
    rewrite(path, lambda content: content["data"].update(sha256=images.sha256()))
    assert checkpoint.read(go_on(tmp_path, total_steps=2))["step"] == 2
