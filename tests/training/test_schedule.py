"""What moves over a run: the learning rates."""

import pytest
from helpers import start

import train
from training.logger import read_stats


def test_the_learning_rate_falls_linearly_from_step_0(tmp_path):
    train.train(start(tmp_path, lr_decay="linear", log_every=3, lr_D=1e-3))
    rates = [(line["step"], line["lr_D"]) for line in read_stats(tmp_path / "run")]
    assert rates == [(step, pytest.approx(1e-3 * (1 - (step - 1) / 12))) for step in (3, 6, 9, 12)]
