"""What moves over a run: learning rates, the penalty's weight, beta2 and the moving average's half-life."""

import math

import pytest
from helpers import assert_same_end, go_on, start

import train
from settings.config import Config
from training import prepare, schedule
from training.reporting.logger import read_stats

COSINES = {
    "lr_cosine": (2e-4, 5e-5, 80.0),
    "gamma_cosine": (0.05, 0.005, 80.0),
    "beta2_cosine": (0.9, 0.99, 80.0),
    "ema_half_life_cosine": (0.0, 40.0, 80.0),
}
MOVED = {**COSINES, "regularizer": ("lecam", "r1_r2"), "d_norm": ("none",)}


def test_the_learning_rate_falls_linearly_from_step_0(tmp_path):
    train.train(start(tmp_path, lr_decay="linear", log_every=3, lr_D=1e-3))
    rates = [(line["step"], line["lr_D"]) for line in read_stats(tmp_path / "run")]
    assert rates == [(step, pytest.approx(1e-3 * (1 - (step - 1) / 12))) for step in (3, 6, 9, 12)]


def test_a_cosine_is_at_its_start_its_middle_and_its_end_where_it_stays():
    papers = (2e-4, 5e-5, 20_000_000)
    found = [schedule.cosine(papers, images) for images in (0, 5_000_000, 10_000_000, 20_000_000, 10**9)]
    quarter = 5e-5 + 1.5e-4 * 0.5 * (1 + math.sqrt(0.5))
    assert found == [pytest.approx(value) for value in (2e-4, quarter, 1.25e-4, 5e-5, 5e-5)]


def test_the_half_life_is_the_images_in_which_the_average_forgets_half():
    config = Config(batch_size=50, n_dis=2, ema_half_life_cosine=(1000.0, 1000.0, 1.0))
    decays = [schedule.ema_decay(config, step) for step in range(1, 11)]  # of 100 images each
    assert math.prod(decays) == pytest.approx(0.5)
    from_0 = Config(batch_size=100, ema_half_life_cosine=(0.0, 1000.0, 200.0))
    found = [schedule.ema_decay(from_0, step) for step in (1, 2, 3, 100)]
    assert found == [0.0, *(pytest.approx(0.5 ** (100 / half_life)) for half_life in (500, 1000, 1000))]


def test_all_of_it_moves_in_the_step_and_is_logged(tmp_path, monkeypatch):
    seen, plain = [], train.discriminator_step

    def watched(G, D, opt_D, batch, objective, precision):
        (group,), ((_, of_lecam), (_, weight)) = opt_D.param_groups, objective.regularizers
        assert of_lecam == 0.3  # the penalties of the gradient alone move
        seen.append({"lr_D": group["lr"], "beta1": group["betas"][0], "beta2": group["betas"][1], "gamma": weight})
        return plain(G, D, opt_D, batch, objective, precision)

    monkeypatch.setattr(train, "discriminator_step", watched)
    train.train(start(tmp_path, log_every=1, betas=(0.25, 0.9), **MOVED))
    said = (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")
    assert " + lecam (weight 0.3) + r1_r2 (weight 0.05 to 0.005), 12 steps" in said
    lines = read_stats(tmp_path / "run")
    for i, (found, line) in enumerate(zip(seen, lines, strict=True)):
        done = 0.5 * (1 - math.cos(math.pi * min(1, 8 * i / 80)))
        expected = {
            "lr_D": 2e-4 - 1.5e-4 * done,
            "beta1": 0.25,
            "beta2": 0.9 + 0.09 * done,
            "gamma": 0.05 - 0.045 * done,
        }
        assert found == pytest.approx(expected)
        assert {name: line[name] for name in ("lr_D", "beta2", "gamma")} == pytest.approx(
            {name: expected[name] for name in ("lr_D", "beta2", "gamma")}
        )
        assert line["lr_G"] == line["lr_D"] and line["ema_half_life"] == pytest.approx(40 * done)


def test_lazy_penalties_come_every_so_many_updates_of_D_and_only_those_draw_noise(tmp_path, monkeypatch):
    seen, plain = [], train.discriminator_step

    def watched(G, D, opt_D, batch, objective, precision):
        seen.append([weight for _, weight in objective.regularizers] + [batch.noise is not None])
        return plain(G, D, opt_D, batch, objective, precision)

    monkeypatch.setattr(train, "discriminator_step", watched)
    chosen = {"regularizer": ("approximate_r2", "orthonormal"), "regularizer_every": 3, "n_dis": 2}
    train.train(start(tmp_path, total_steps=5, gamma_cosine=(2.0, 2.0, 9.0), **chosen))
    assert seen == [[6.0, 1e-4, True] if update % 3 == 0 else [1e-4, False] for update in range(10)]
    said = (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")
    assert (
        " + approximate_r2 (weight 2 to 2, times 3 in one of 3 updates of D) + orthonormal (weight 0.0001), 5" in said
    )


def test_a_run_of_r3gan_whose_settings_move_goes_on_bit_for_bit(tmp_path):
    flags = MOVED | {"model": "r3gan", "log_every": 1}
    train.train(start(tmp_path, "whole", **flags))
    train.train(start(tmp_path, "run", total_steps=5, **flags))
    go_on(tmp_path, total_steps=12)
    assert_same_end(tmp_path / "whole", tmp_path / "run")


def test_the_dry_run_says_in_sentences_what_moves(tmp_path, capsys):
    flags = {"batch_size": 8, "total_steps": 12, "run_dir": str(tmp_path / "run"), **MOVED}
    with pytest.raises(SystemExit):
        prepare(flags, dry_run=True)
    said = capsys.readouterr().out
    assert "# lr: 0.0002 to 5e-05 by a cosine over the first 80 real images, by step 10\n" in said
    assert "# ema_half_life: 0 to 40 by a cosine over the first 80 real images" in said
