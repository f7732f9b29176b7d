"""The two updates against hand computation, and the loop: stopped, killed, resumed, diverged."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from helpers import ROOT, SMALL

import train
from datasets.sources import load_split
from losses import LOSSES, REGULARIZERS
from models import build_models
from training import checkpoint, monitor
from training.logger import read_stats
from training.objective import Batch, Objective
from training.resume import prepare
from training.run_dir import checkpoints, latest
from utils.combinations import check_combinations
from utils.config import FIELDS
from utils.errors import Diverged, Stopped, UserError
from utils.settings import load_yaml, resolve

FAST = SMALL | {"total_steps": 12, "save_every": 5, "sample_every": 4, "log_every": 2}


def start(tmp_path, name="run", **flags):
    return prepare({**FAST, "run_dir": str(tmp_path / name), **flags})


@pytest.fixture
def no_pictures(monkeypatch):
    """Curves and animation are most of the time of a run of two steps."""
    monkeypatch.setattr(monitor, "finish_pictures", lambda *args: None)


def linear_pair():
    """G(z) = z and D(x) = w . x in float64, so that every update has a closed form."""
    G, D = torch.nn.Identity(), torch.nn.Linear(3, 1, bias=False).double()
    return G, D, torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)


def objective(loss="wasserstein", **options):
    return Objective(*LOSSES[loss], **options)


# ---- One update ----------------------------------------------------------------------------------------------------


def test_a_wasserstein_update_of_a_linear_D_is_the_difference_of_the_means():
    G, D, real, z = linear_pair()
    before = D.weight.detach().clone()
    optimizer = torch.optim.SGD(D.parameters(), lr=0.1)
    loss, real_logits, fake_logits = train.discriminator_step(G, D, optimizer, Batch(z, real), objective())
    assert torch.allclose(D.weight, before + 0.1 * (real.mean(0) - z.mean(0)), atol=1e-14)
    assert torch.allclose(real_logits, real @ before.t()) and torch.allclose(fake_logits, z @ before.t())
    assert loss.item() == pytest.approx((z.mean(0) - real.mean(0)).dot(before[0]).item())
    assert not (loss.requires_grad or real_logits.requires_grad or fake_logits.requires_grad)


def test_the_penalty_is_added_with_its_weight():
    G, D, real, z = linear_pair()
    before = D.weight.detach().clone()
    optimizer, alpha = torch.optim.SGD(D.parameters(), lr=0.1), torch.rand(5, 1, dtype=torch.float64)
    penalised = objective(regularizers=((REGULARIZERS["gradient_penalty"], 10.0),))
    train.discriminator_step(G, D, optimizer, Batch(z, real, alpha), penalised)
    norm = before.norm()
    penalty_gradient = 10.0 * 2 * (norm - 1) * before / norm
    assert torch.allclose(D.weight, before + 0.1 * (real.mean(0) - z.mean(0)) - 0.1 * penalty_gradient, atol=1e-12)


def test_weights_are_clipped_after_the_update():
    G, D, real, z = linear_pair()
    optimizer = torch.optim.SGD(D.parameters(), lr=100.0)
    clipped = objective(regularizers=((REGULARIZERS["weight_clipping"], 0.01),))
    train.discriminator_step(G, D, optimizer, Batch(z, real), clipped)
    assert D.weight.abs().max().item() == 0.01


def test_the_generator_update_moves_G_alone_and_leaves_no_gradient_in_D():
    G, D = torch.nn.Linear(2, 3, bias=False).double(), torch.nn.Linear(3, 1, bias=False).double()
    z = torch.randn(4, 2, dtype=torch.float64)
    before_G, before_D = G.weight.detach().clone(), D.weight.detach().clone()
    train.generator_step(G, D, torch.optim.SGD(G.parameters(), lr=0.5), Batch(z), objective("hinge"))
    assert torch.allclose(G.weight, before_G + 0.5 * D.weight.t() * z.mean(0), atol=1e-14)
    assert torch.equal(D.weight, before_D) and D.weight.grad is None and D.weight.requires_grad


def test_the_discriminator_update_leaves_G_without_gradients():
    G, D = build_models("mlp", image_size=8, channels=1, z_dim=8, base_channels=4)
    optimizer = torch.optim.Adam(D.parameters())
    train.discriminator_step(G, D, optimizer, Batch(torch.randn(4, 8), torch.rand(4, 1, 8, 8)), objective("bce"))
    assert all(parameter.grad is None for parameter in G.parameters())


@pytest.mark.parametrize("loss", LOSSES)
def test_one_joint_forward_of_D_gives_the_update_of_two(loss):
    updated = []
    for joint in (True, False):
        torch.manual_seed(3)
        G, D = (net.double() for net in build_models("dcgan", 8, 1, 8, 4, d_norm="layer"))
        real, z = torch.rand(4, 1, 8, 8).double(), torch.randn(4, 8).double()
        optimizer = torch.optim.SGD(D.parameters(), lr=1.0)
        train.discriminator_step(G, D, optimizer, Batch(z, real), objective(loss, joint=joint))
        updated.append(torch.cat([p.detach().flatten() for p in D.parameters()]))
    assert torch.allclose(*updated, rtol=0, atol=1e-13)


# ---- Whole runs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", FIELDS["loss"].metadata["choices"])
@pytest.mark.parametrize("model", FIELDS["model"].metadata["choices"])
def test_every_model_trains_with_every_loss(tmp_path, no_pictures, model, loss):
    path = train.train(start(tmp_path, model=model, loss=loss, total_steps=2))
    assert checkpoint.load(path)["step"] == 2


NORMS = [("none",), ("spectral",), ("weight",), ("batch",), ("layer",), ("spectral", "batch"), ("weight", "layer")]


@pytest.mark.parametrize("regularizer", FIELDS["regularizer"].metadata["choices"])
@pytest.mark.parametrize("d_norm", NORMS, ids="-".join)
def test_every_sensible_norm_and_regularizer_trains_and_the_others_are_refused(
    tmp_path, no_pictures, d_norm, regularizer
):
    flags = {"d_norm": d_norm, "regularizer": regularizer, "g_sn": True, "model": "resnet", "total_steps": 2}
    senseless = (regularizer == "weight_clipping" and {"spectral", "weight"} & set(d_norm)) or (
        regularizer in ("gradient_penalty", "r1") and "batch" in d_norm
    )
    if senseless:
        with pytest.raises(UserError, match=f"{regularizer} makes no sense with d_norm"):
            start(tmp_path, **flags)
    else:
        assert checkpoint.load(train.train(start(tmp_path, **flags)))["step"] == 2


def test_a_run_directory_holds_what_the_design_says(tmp_path):
    path = train.train(start(tmp_path))
    where = tmp_path / "run"
    assert path == where / "checkpoints" / "step_000012.pt"
    assert [step for step, _ in checkpoints(where)] == [5, 10, 12]  # step 0 was thinned
    names = {
        str(file.relative_to(where)) for file in where.rglob("*") if file.is_file() and "checkpoints" not in file.parts
    }
    grids = {f"samples/step_{step:06d}.png" for step in (0, 4, 8, 12)}
    assert names == {"config.yaml", "log.txt", "stats.jsonl", "plots/curves.png", "plots/samples.gif"} | grids
    assert [line["step"] for line in read_stats(where)] == [2, 4, 6, 8, 10, 12]
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
    first, second = checkpoint.load(looked), checkpoint.load(alone)
    for part in ("G", "D", "ema"):
        assert all(torch.equal(value, second[part][name]) for name, value in first[part].items())
    assert torch.equal(first["random"], second["random"])


def test_the_gradient_at_Ds_input_is_that_of_fixed_images_and_samples(tmp_path, no_pictures):
    path = train.train(start(tmp_path, total_steps=1, log_every=1, model="mlp", ema_decay=0.0, batch_size=6))
    content = checkpoint.load(path)
    D = checkpoint.load_discriminator(path)
    G, config, _ = checkpoint.generator_of(content, path)
    images = load_split(config).images
    real = (images[[i * len(images) // 6 for i in range(6)]] + 0.5) / 128 - 1
    with torch.no_grad():
        fake = G(monitor.preview_latents(config.z_dim, "cpu")[:6])
    x = torch.cat([real, fake]).requires_grad_(True)
    expected = torch.autograd.grad(D(x).sum(), x)[0].flatten(1).norm(dim=1).mean().item()
    (line,) = read_stats(tmp_path / "run")
    assert line["grad_norm_input"] == pytest.approx(expected, rel=1e-5)


def test_the_learning_rate_falls_linearly_from_step_0(tmp_path):
    train.train(start(tmp_path, lr_decay="linear", log_every=3, lr_D=1e-3))
    rates = [(line["step"], line["lr_D"]) for line in read_stats(tmp_path / "run")]
    assert rates == [(step, pytest.approx(1e-3 * (1 - (step - 1) / 12))) for step in (3, 6, 9, 12)]


def test_num_epochs_become_steps(tmp_path):
    path = train.train(start(tmp_path, total_steps=1, n_dis=3, batch_size=250))
    stream = checkpoint.load(path)["data"]
    assert (stream["epoch"], stream["position"]) == (0, 750)
    flags = {key: value for key, value in FAST.items() if key != "total_steps"} | {"batch_size": 250}
    path = train.train(prepare({**flags, "num_epochs": 2, "n_dis": 3, "run_dir": str(tmp_path / "epochs")}))
    assert checkpoint.load(path)["step"] == 4  # ceil(2 * 1,498 / 750)


def test_tensorboard_gets_the_statistics(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train.train(start(tmp_path, tensorboard=True))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    written = [(event.step, pytest.approx(event.value)) for event in events.Scalars("loss_D")]
    assert written == [(line["step"], line["loss_D"]) for line in read_stats(tmp_path / "run")]


def test_scores_during_training_do_not_disturb_it(tmp_path, data_dir):
    plain = train.train(start(tmp_path, "plain", ema_decay=0.0))
    scored = train.train(start(tmp_path, "scored", ema_decay=0.0, eval_every=6, data_dir=data_dir))
    assert_same_state(checkpoint.load(plain), checkpoint.load(scored))
    scores = [line for line in read_stats(tmp_path / "scored") if "fid" in line]
    assert [line["step"] for line in scores] == [6, 12]
    assert all(line["inception_score"] > 0.999 and line["fid"] > 0 for line in scores)
    assert all(line["protocol"].startswith("modern: 100 samples, 1,498 train images of digits") for line in scores)


# ---- Stopped, killed, resumed --------------------------------------------------------------------------------------


def assert_same_state(a, b):
    """Two checkpoints are the same bit for bit, but for the configuration."""

    def compare(x, y, where):
        assert type(x) is type(y), where
        if isinstance(x, dict):
            assert x.keys() == y.keys(), where
            for key in x:
                compare(x[key], y[key], f"{where}.{key}")
        elif isinstance(x, list):
            assert len(x) == len(y), where
            for i, (p, q) in enumerate(zip(x, y)):
                compare(p, q, f"{where}[{i}]")
        elif isinstance(x, torch.Tensor):
            assert torch.equal(x, y), where
        else:
            assert x == y, where

    compare({**a, "config": None}, {**b, "config": None}, "checkpoint")


def same_stats(a, b):
    def timeless(where):
        return [{key: value for key, value in line.items() if key != "seconds_per_step"} for line in read_stats(where)]

    return timeless(a) == timeless(b)


KILLED_IN_STEP_9 = """
import os, signal, sys
import train
plain, calls = train.generator_step, []
def killed(*args):
    calls.append(None)
    if len(calls) == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(*args)
train.generator_step = killed
sys.argv = ["train.py", *sys.argv[1:]]
train.main()
"""


@pytest.mark.parametrize("model", ["dcgan", "resnet", "mlp"])
def test_train_kill_resume_equals_the_run_without_the_kill_bit_by_bit(tmp_path, model):
    flags = {"model": model, "g_sn": True, "n_dis": 2, "lr_decay": "linear", "log_every": 3}
    whole = train.train(start(tmp_path, "whole", **flags))
    typed = [f"--{name}={value}" for name, value in (FAST | flags).items() if value is not True] + ["--g_sn"]
    command = [sys.executable, "-c", KILLED_IN_STEP_9, *typed, f"--run_dir={tmp_path / 'killed'}"]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert latest(tmp_path / "killed").name == "step_000005.pt"
    assert read_stats(tmp_path / "killed")[-1]["step"] == 6  # beyond the checkpoint: dropped and written again
    threads = torch.get_num_threads()
    resumed = train.train(prepare({"resume": str(tmp_path / "killed")}))
    assert torch.get_num_threads() == threads
    assert_same_state(checkpoint.load(whole), checkpoint.load(resumed))
    assert same_stats(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_a_checkpoint_and_the_resumed_run_is_the_same(tmp_path, monkeypatch, number):
    whole = train.train(start(tmp_path, "whole"))
    plain, calls = train.generator_step, []

    def signalled(*args):
        calls.append(None)
        if len(calls) == 7:
            os.kill(os.getpid(), number)
        return plain(*args)

    monkeypatch.setattr(train, "generator_step", signalled)
    with pytest.raises(Stopped, match=r"stopped after step 7 .*--resume") as stopped:
        train.train(start(tmp_path, "stopped"))
    assert stopped.value.exit_code == 128 + number
    assert latest(tmp_path / "stopped").name == "step_000007.pt"
    resumed = train.train(prepare({"resume": str(tmp_path / "stopped")}))
    assert_same_state(checkpoint.load(whole), checkpoint.load(resumed))
    assert same_stats(tmp_path / "whole", tmp_path / "stopped")


def test_a_signal_while_scoring_loses_no_step(tmp_path, data_dir, monkeypatch):
    plain, calls = monitor.score, []

    def signalled(*args):
        if not calls:
            os.kill(os.getpid(), signal.SIGTERM)
        calls.append(None)
        return plain(*args)

    monkeypatch.setattr(monitor, "score", signalled)
    with pytest.raises(Stopped, match=r"stopped after step 8 and saved .*step_000008.pt"):
        train.train(start(tmp_path, eval_every=7, data_dir=data_dir))
    assert latest(tmp_path / "run").name == "step_000008.pt"


def test_a_run_on_other_data_is_not_resumed(tmp_path, image_folder):
    flags = {"dataset": "folder", "data_dir": str(image_folder), "image_size": 8, "total_steps": 3}
    train.train(start(tmp_path, **flags))
    (image_folder / "dark" / "00.png").unlink()
    with pytest.raises(UserError, match="trained on other data than there are now"):
        train.train(prepare({"resume": str(tmp_path / "run"), "total_steps": 6}))


def test_a_picture_that_fails_does_not_hide_how_the_run_ended(tmp_path, monkeypatch):
    def full(*args):
        raise OSError("no space left")

    monkeypatch.setattr(monitor.plots, "plot_curves", full)
    assert checkpoint.load(train.train(start(tmp_path)))["step"] == 12
    assert "could not be made: no space left" in (tmp_path / "run" / "log.txt").read_text()


def test_a_finished_run_that_is_resumed_stays_as_it_is(tmp_path):
    path = train.train(start(tmp_path))
    before = path.read_bytes()
    assert train.train(prepare({"resume": str(tmp_path / "run")})) == path
    assert path.read_bytes() == before
    assert [line["step"] for line in read_stats(tmp_path / "run")] == [2, 4, 6, 8, 10, 12]


def test_a_resumed_run_may_go_further_but_not_change_its_model(tmp_path):
    train.train(start(tmp_path, total_steps=4))
    path = train.train(prepare({"resume": str(tmp_path / "run"), "total_steps": 6}))
    assert checkpoint.load(path)["step"] == 6
    with pytest.raises(UserError, match="--model resnet cannot change"):
        prepare({"resume": str(tmp_path / "run"), "model": "resnet"})


def test_a_run_never_overwrites_another(tmp_path):
    train.train(start(tmp_path, total_steps=2))
    with pytest.raises(UserError, match=r"exists, and a run never overwrites another. Go on with --resume"):
        start(tmp_path)


def test_a_diverging_run_stops_with_the_step_and_the_last_good_checkpoint(tmp_path):
    flags = {"lr_D": 1e30, "d_norm": ("none",), "loss": "wasserstein", "log_every": 4, "save_every": 2}
    with pytest.raises(Diverged, match=r"not finite at step \d+.*last good checkpoint is .*step_0000") as diverged:
        train.train(start(tmp_path, **flags))
    assert diverged.value.exit_code == 3
    saved = checkpoint.load(latest(tmp_path / "run"))
    assert all(value.isfinite().all() for value in saved["D"].values())
    (entry,) = load_yaml(tmp_path / "run" / "config.yaml")["record"]
    assert "not finite at step" in entry["diverged"]


def test_a_disk_too_small_is_refused_before_the_first_step(tmp_path, monkeypatch):
    usage = type("usage", (), {"free": 50 * 2**20})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(UserError, match="50 MiB are free"):
        train.train(start(tmp_path))
    assert not (tmp_path / "run").exists()


def test_cuda_that_is_absent_is_refused(tmp_path):
    flags = {"device": f"cuda:{torch.cuda.device_count()}"} if torch.cuda.is_available() else {"device": "cuda"}
    with pytest.raises(UserError, match="CUDA devices here"):
        train.train(start(tmp_path, **flags))


def test_every_preset_and_experiment_resolves_to_networks_that_fit(tmp_path):
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        config, _ = resolve({"config": str(path), "base_channels": 2})
        assert path.stem.startswith(f"{config.dataset}_{config.model}")
        check_combinations(config)
        G, D = checkpoint.models_of(config)
        images = G(torch.randn(2, config.z_dim))
        assert images.shape == (2, config.channels, config.image_size, config.image_size)
        assert D(images).shape == (2, 1)


def test_stats_are_json_lines(tmp_path):
    train.train(start(tmp_path, total_steps=2))
    lines = (tmp_path / "run" / "stats.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2]
