"""What a run measures, draws, scores and saves beside its checkpoints, and that it changes nothing."""

import pytest
import torch
from helpers import assert_same, break_losses, logged, start, steps_of

import train
from datasets import load_split
from settings.layers import load_yaml
from training.checkpoints import checkpoint
from training.checkpoints.run_dir import latest
from training.reporting.logger import read_stats
from training.run import PREVIEW, PREVIEW_SEED
from utils.errors import Diverged


def test_a_run_directory_holds_what_the_design_says(tmp_path):
    path = train.train(start(tmp_path, sample_every=4))
    where = tmp_path / "run"
    assert path == where / "checkpoints" / "step_000012.pt"
    assert steps_of(where) == [5, 10, 12]  # step 0 was thinned
    names = {
        str(file.relative_to(where)) for file in where.rglob("*") if file.is_file() and "checkpoints" not in file.parts
    }
    grids = {f"samples/step_{step:06d}.png" for step in (0, 4, 8, 12)}
    grids |= {"samples/real.png"}
    plots = {f"plots/{name}" for name in ("curves.png", "samples.gif")}
    assert names == {"config.yaml", "log.txt", "stats.jsonl", "report.html", ".lock"} | plots | grids
    assert logged(where) == [2, 4, 6, 8, 10, 12]
    for line in read_stats(where):
        assert line["lr_G"] == 5e-4 and line["grad_norm_D"] > 0 and line["grad_norm_G"] > 0
        assert {"loss_D", "loss_G", "real_logits", "fake_logits", "seconds_per_step"} <= set(line)
        assert 0 <= line["accuracy_D"] <= 1 and line["grad_norm_input"] > 0


@pytest.mark.parametrize("model", ["mlp", "resnet"])
def test_looking_at_D_changes_nothing_in_the_run(tmp_path, no_pictures, model):
    flags = {"model": model, "d_norm": ("spectral", "batch"), "total_steps": 4, "save_every": 4}
    looked = train.train(start(tmp_path, "looked", **flags, log_every=1, audit_every=1))
    alone = train.train(start(tmp_path, "alone", **flags, log_every=4))
    audits = sorted(path.name for path in (tmp_path / "looked" / "audits").iterdir())
    assert audits == [f"step_00000{step}.json" for step in range(5)]
    assert not (tmp_path / "alone" / "audits").exists()
    first, second = checkpoint.read(looked), checkpoint.read(alone)
    for part in ("G", "D", "ema"):
        assert all(torch.equal(value, second[part][name]) for name, value in first[part].items())
    assert torch.equal(first["random"], second["random"])


def test_the_gradient_at_Ds_input_is_that_of_fixed_images_and_samples(tmp_path, no_pictures):
    path = train.train(start(tmp_path, total_steps=1, log_every=1, model="mlp", ema_decay=0.0, batch_size=6))
    saved = checkpoint.load(path)
    D, G, config = saved.discriminator(), saved.generator().G, saved.config
    images = load_split(config).images
    real = (images[[i * len(images) // 6 for i in range(6)]] + 0.5) / 128 - 1
    with torch.no_grad():
        fake = G(torch.randn(PREVIEW, config.z_dim, generator=torch.Generator().manual_seed(PREVIEW_SEED))[:6])
    x = torch.cat([real, fake]).requires_grad_(True)
    expected = torch.autograd.grad(D(x).sum(), x)[0].flatten(1).norm(dim=1).mean().item()
    (line,) = read_stats(tmp_path / "run")
    assert line["grad_norm_input"] == pytest.approx(expected, rel=1e-5)


def test_scores_during_training_do_not_disturb_it(tmp_path, no_pictures, data_dir):
    plain = train.train(start(tmp_path, "plain", ema_decay=0.0))
    scored = train.train(start(tmp_path, "scored", ema_decay=0.0, eval_every=6, data_dir=data_dir))
    assert_same(*({**checkpoint.read(path), "config": None} for path in (plain, scored)))
    scores = [line for line in read_stats(tmp_path / "scored") if "fid" in line]
    assert [line["step"] for line in scores] == [6, 12]
    assert all(line["inception_score"] > 0.999 and line["fid"] > 0 for line in scores)
    assert all(line["protocol"].startswith("modern: 100 samples, 1,498 train images of digits") for line in scores)


def test_g_itself_is_scored_beside_its_moving_average(tmp_path, no_pictures, data_dir):
    flags = {"eval_every": 6, "eval_neighbours": True, "data_dir": data_dir}
    train.train(start(tmp_path, "plain", ema_decay=0.0, **flags))
    train.train(start(tmp_path, "averaged", ema_decay=0.5, eval_own=True, **flags))
    plain, averaged = (
        [line for line in read_stats(tmp_path / name) if "fid" in line] for name in ("plain", "averaged")
    )
    names = ("inception_score", "fid", "kid", "precision", "recall", "density", "coverage", "classes_missing")
    for one, both in zip(plain, averaged, strict=True):  # a moving average does not change what is averaged
        assert [one[name] for name in names] == [both[f"{name}_of_G"] for name in names]
        assert not any(name.endswith("_of_G") for name in one)
    assert averaged[-1]["fid"] != averaged[-1]["fid_of_G"]


def test_a_nan_is_found_before_the_samples_are_scored(tmp_path, no_pictures, monkeypatch, data_dir):
    break_losses(monkeypatch, {3})
    with pytest.raises(Diverged, match="loss_D is not finite at step 3"):
        train.train(start(tmp_path, eval_every=4, log_every=100, data_dir=data_dir))


def test_a_diverging_run_stops_with_the_step_and_the_last_good_checkpoint(tmp_path, no_pictures):
    flags = {"lr_D": 1e30, "d_norm": ("none",), "loss": "wasserstein", "log_every": 4, "save_every": 2}
    with pytest.raises(Diverged, match=r"not finite at step \d+.*last good checkpoint is .*step_0000") as diverged:
        train.train(start(tmp_path, **flags))
    assert diverged.value.exit_code == 3
    saved = checkpoint.read(latest(tmp_path / "run"))
    assert all(value.isfinite().all() for value in saved["D"].values())
    (entry,) = load_yaml(tmp_path / "run" / "config.yaml")["record"]
    assert "not finite at step" in entry["diverged"]


def test_a_picture_that_fails_does_not_hide_how_the_run_ended(tmp_path, monkeypatch):
    def full(*args):
        raise OSError("no space left")

    monkeypatch.setattr("training.reporting.plots.plot_curves", full)
    assert checkpoint.read(train.train(start(tmp_path)))["step"] == 12
    assert "could not be made: no space left" in (tmp_path / "run" / "log.txt").read_text()
