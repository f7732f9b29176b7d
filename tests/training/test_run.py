"""Whole runs: every model, loss, norm and regularizer, and what else a run is told or meets."""

import itertools
import time

import pytest
import torch
import yaml
from helpers import FAST, ROOT, assert_same_end, at_step, go_on, logged, start

import train
from datasets import Classes
from settings.config import FIELDS, PENALTIES
from settings.layers import resolve
from settings.rules import check_combinations
from training import prepare
from training.checkpoints import checkpoint
from training.reporting.logger import read_stats
from utils.errors import UserError

pytestmark = pytest.mark.usefixtures("no_pictures")


LOSSES, MODELS = (FIELDS[name].metadata["choices"] for name in ("loss", "model"))
PAIRS = {
    "none": itertools.product(MODELS, LOSSES),
    "bf16": {(name, "hinge") for name in MODELS} | {("dcgan", name) for name in LOSSES},
}


@pytest.mark.parametrize(
    ("amp", "model", "loss"), [(amp, *pair) for amp, pairs in PAIRS.items() for pair in sorted(pairs)]
)
def test_every_model_trains_with_every_loss(tmp_path, fast_bf16, amp, model, loss):
    path = train.train(start(tmp_path, model=model, loss=loss, amp=amp, total_steps=2))
    assert checkpoint.read(path)["step"] == 2


@pytest.mark.parametrize("regularizer", FIELDS["regularizer"].metadata["choices"][1:])
def test_every_regularizer_trains_in_half_precision_and_parts(tmp_path, fast_bf16, regularizer):
    flags = {"d_norm": ("layer",), "regularizer": (regularizer,), "accumulate": 2, "conditional": "projection"}
    content = checkpoint.read(train.train(start(tmp_path, amp="bf16", total_steps=2, **flags)))
    assert {value.dtype for network in ("G", "D", "ema") for value in content[network].values()} <= {
        torch.float32,
        torch.int64,
    }
    moments = [state["exp_avg"] for name in ("opt_G", "opt_D") for state in content[name]["state"].values()]
    assert all(moment.dtype == torch.float32 and moment.isfinite().all() for moment in moments)


def test_a_run_keeps_what_auto_meant_and_goes_on_without_half_precision_if_told_so(
    tmp_path, monkeypatch, fast_bf16, capsys
):
    path = train.train(start(tmp_path, amp="auto", total_steps=2))
    assert checkpoint.read(path)["config"]["amp"] == "bf16"
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["amp"] == "bf16"
    assert "on cpu, 1 thread, in bf16" in capsys.readouterr().out
    monkeypatch.setattr("utils.precision.bf16_gain", lambda: 0.1)
    with pytest.raises(UserError, match=r"takes 10\.0 times as long in bfloat16 .* use --amp none"):
        go_on(tmp_path, total_steps=4)
    assert checkpoint.read(go_on(tmp_path, total_steps=4, amp="none"))["config"]["amp"] == "none"
    assert "changed     amp bf16 -> none" in capsys.readouterr().out


NORMS = [("none",), ("spectral",), ("weight",), ("batch",), ("layer",), ("spectral", "batch"), ("weight", "layer")]


@pytest.mark.parametrize("regularizer", FIELDS["regularizer"].metadata["choices"])
@pytest.mark.parametrize("d_norm", NORMS, ids="-".join)
def test_every_sensible_norm_and_regularizer_trains_and_the_others_are_refused(tmp_path, d_norm, regularizer):
    flags = {"lecam_start": 1} if regularizer == "lecam" else {}
    flags |= {"d_norm": d_norm, "regularizer": (regularizer,), "g_sn": True, "model": "resnet", "total_steps": 2}
    senseless = (regularizer == "weight_clipping" and {"spectral", "weight"} & set(d_norm)) or (
        regularizer in PENALTIES and "batch" in d_norm
    )
    if senseless:
        with pytest.raises(UserError, match=f"{regularizer} makes no sense with d_norm"):
            start(tmp_path, **flags)
    else:
        assert checkpoint.read(train.train(start(tmp_path, **flags)))["step"] == 2


def test_num_epochs_become_steps(tmp_path):
    path = train.train(start(tmp_path, total_steps=1, n_dis=3, batch_size=250))
    stream = checkpoint.read(path)["data"]
    assert (stream["epoch"], stream["position"]) == (0, 750)
    flags = {key: value for key, value in FAST.items() if key != "total_steps"} | {"batch_size": 250}
    path = train.train(prepare({**flags, "num_epochs": 2, "n_dis": 3, "run_dir": str(tmp_path / "epochs")}))
    assert checkpoint.read(path)["step"] == 4  # ceil(2 * 1,498 / 750)


def test_every_preset_and_experiment_resolves_to_networks_that_fit(tmp_path):
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        config, _ = resolve({"config": str(path), "base_channels": 2})
        assert path.stem.startswith(f"{config.dataset}_{config.model}")
        check_combinations(config)
        classes = Classes(tuple(map(str, range(10))), (1,) * 10) if config.conditional != "none" else None
        G, D = checkpoint.models_of(config, classes)
        labels = [torch.tensor([0, 9])] if classes else []
        images = G(torch.randn(2, config.z_dim), *labels)
        assert images.shape == (2, config.channels, config.image_size, config.image_size)
        assert D(images, *labels).shape == (2, 1)


def test_cuda_that_is_absent_is_refused(tmp_path):
    flags = {"device": f"cuda:{torch.cuda.device_count()}"} if torch.cuda.is_available() else {"device": "cuda"}
    with pytest.raises(UserError, match="but torch finds only cpu"):
        train.train(start(tmp_path, **flags))


def test_deterministic_runs_are_the_same_bits(tmp_path):
    try:
        for name in ("first", "second"):
            train.train(start(tmp_path, name, deterministic=True, model="resnet"))
            assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert_same_end(tmp_path / "first", tmp_path / "second")


def test_a_clock_that_jumps_changes_nothing(tmp_path, whole, monkeypatch):
    moment = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(moment)))  # back an hour each time that somebody asks
    train.train(start(tmp_path))
    assert_same_end(whole, tmp_path / "run")
    assert all(0 < line["seconds_per_step"] < 60 for line in read_stats(tmp_path / "run"))
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["record"][0]["wall_seconds"] >= 0


# ---- Memory --------------------------------------------------------------------------------------------------------


def no_memory_on_the_cpu():
    torch.empty(2**50)


def no_memory_on_the_gpu():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.parametrize("happen", [no_memory_on_the_cpu, no_memory_on_the_gpu])
def test_memory_that_runs_out_names_the_batch_size_and_what_to_do(tmp_path, monkeypatch, happen):
    with monkeypatch.context() as patched:
        at_step(patched, 7, happen)
        with pytest.raises(UserError, match=r"out of memory with batch_size 8 and 16 for G: .*--accumulate 2"):
            train.train(start(tmp_path, batch_size_G=16))
    assert checkpoint.read(go_on(tmp_path, accumulate=2))["step"] == 12


def test_an_error_of_the_program_itself_is_not_taken_for_one_of_memory(tmp_path, monkeypatch):
    def bug():
        raise RuntimeError("shapes do not match")

    at_step(monkeypatch, 2, bug)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        train.train(start(tmp_path))


def test_a_run_accumulates_and_may_do_so_from_a_resume_on(tmp_path):
    train.train(start(tmp_path, total_steps=2))
    go_on(tmp_path, total_steps=4, accumulate=2)
    assert "changed     accumulate 1 -> 2" in (tmp_path / "run" / "log.txt").read_text()
    assert logged(tmp_path / "run")[-1] == 4
