"""Training on several ranks: the same run as on one, one writer, one message when it ends."""

import json
import sys

import pytest
import torch
from helpers import SMALL
from ranks import run_stages

import train
from losses import LOSSES, REGULARIZERS
from models import build_models
from training import checkpoint
from training.logger import read_stats
from training.objective import Batch, Objective
from training.resume import prepare
from utils.distributed import check_shares
from utils.errors import UserError
from utils.settings import resolve

BODY = """
import os, signal, sys
import sklearn.datasets, torch._dynamo  # once, before the forks
import torch
import train, training.monitor
from datasets import load_split
from training.resume import prepare
from training.state import State
from utils.settings import resolve
from utils.distributed import processes, rank, world_size
from helpers import SMALL

FAST = SMALL | {"total_steps": 12, "save_every": 5, "sample_every": 6, "log_every": 4}
training.monitor.finish_pictures = lambda *args: None  # most of the time of such a run

def updates(path, steps, dtype, flags):
    torch.set_default_dtype(getattr(torch, dtype))
    with processes():
        config, _ = resolve({**SMALL, "batch_size": 16, **flags})
        state = State(config, load_split(config), torch.device("cpu"))
        state.G.train()
        state.D.train()
        for _ in range(steps):
            train.step(state, config)
        history = state.history()
        torch.save({**state.state_dict(), "history": history}, f"{path}_{world_size()}_{rank()}.pt")

def whole_run(run_dir, flags=None):
    with processes():
        train.train(prepare({**FAST, **(flags or {}), "run_dir": run_dir}))

def resumed_run(run_dir, flags=None):
    with processes():
        train.train(prepare({"resume": run_dir, **(flags or {})}))

def at_step(number, do):
    plain, calls = train.generator_step, []
    def wrapped(*args):
        calls.append(None)
        if len(calls) == number:
            do()
        return plain(*args)
    train.generator_step = wrapped

def killed_run(run_dir, flags=None):
    at_step(9, lambda: os.kill(os.getpid(), signal.SIGKILL))
    whole_run(run_dir, flags)

def one_is_killed(run_dir):
    if os.environ["RANK"] == "1":
        at_step(3, lambda: os.kill(os.getpid(), signal.SIGKILL))
    whole_run(run_dir)

def one_raises(run_dir):
    def full():
        raise torch.OutOfMemoryError("not a byte left")
    if os.environ["RANK"] == "1":
        at_step(3, full)
    whole_run(run_dir)

def one_has_nan(run_dir):
    if os.environ["RANK"] == "1":
        plain = train.discriminator_step
        def broken(*args):
            loss, real, fake = plain(*args)
            return loss * float("nan"), real, fake
        train.discriminator_step = broken
    whole_run(run_dir)

def one_is_signalled(run_dir):
    if os.environ["RANK"] == "1":
        at_step(7, lambda: os.kill(os.getpid(), signal.SIGTERM))
    whole_run(run_dir)

def writes_are_listed(run_dir):
    written = []
    def hook(event, arguments):
        writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes and isinstance(arguments[0], (str, os.PathLike)):
            written.append(os.fspath(arguments[0]))
    sys.addaudithook(hook)
    whole_run(run_dir)
    own = [path for path in written if path.startswith(run_dir)]
    print(f"<rank {os.environ['RANK']} wrote {len(own)}>")
"""

# What the equality of one and two ranks is tested with: {name: flags}.
SETTINGS = {
    "dcgan": {"model": "dcgan"},
    "dcgan, batch norm in D": {"model": "dcgan", "d_norm": ["spectral", "batch"], "loss": "bce"},
    "resnet, gradient penalty": {"model": "resnet", "d_norm": ["layer"], "regularizer": "gradient_penalty"},
    "mlp, spectral norm in G": {"model": "mlp", "g_sn": True, "loss": "wasserstein", "n_dis": 2},
}


def called(name, *arguments):
    return f"{name}({', '.join(map(repr, arguments))})"


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """What 20 steps of each of SETTINGS in float64 leave on one rank and on two, and 100 in float32 on two."""
    folder = tmp_path_factory.mktemp("ranks")
    stages = [
        (count, called("updates", f"{folder}/{name}", 20, "float64", {**flags, "d_norm": tuple(flags["d_norm"])}))
        if "d_norm" in flags
        else (count, called("updates", f"{folder}/{name}", 20, "float64", flags))
        for name, flags in SETTINGS.items()
        for count in (1, 2)
    ]
    stages.append((2, called("updates", f"{folder}/long", 100, "float32", {"model": "dcgan", "g_sn": True})))
    for result in run_stages(BODY, stages):
        assert set(result["codes"]) == {0}, result["printed"]
    return folder


@pytest.mark.parametrize("name", SETTINGS)
def test_two_ranks_make_the_updates_of_one(ended, name):
    alone, shared = (torch.load(ended / f"{name}_{count}_0.pt") for count in (1, 2))
    # Under wasserstein D's accuracy, the last column, is counted by each rank about the middle of its own part.
    columns = slice(4) if SETTINGS[name].get("loss") == "wasserstein" else slice(None)
    shared_history, history = shared["history"][:, columns], alone["history"][:, columns]
    torch.testing.assert_close(shared_history, history, rtol=1e-9, atol=1e-9)
    for network in ("G", "D", "ema"):
        assert alone[network].keys() == shared[network].keys()
        for key, value in alone[network].items():
            torch.testing.assert_close(shared[network][key], value, rtol=1e-9, atol=1e-9, msg=key)


def test_weights_u_and_v_are_the_same_bits_on_all_ranks_after_100_steps(ended):
    first, second = (torch.load(ended / f"long_2_{rank}.pt") for rank in (0, 1))
    names = [name for name in first["D"] if name.endswith((".0.u", ".0.v"))]
    assert len(names) == 2 * 8
    for network in ("G", "D", "ema"):
        assert all(torch.equal(value, second[network][name]) for name, value in first[network].items())


def timeless(run_dir):
    return [{key: value for key, value in line.items() if key != "seconds_per_step"} for line in read_stats(run_dir)]


def same(a, b):
    """Whether two checkpoints hold the same bits, their configurations aside."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a if key != "config")
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_on_two_ranks_train_kill_resume_equals_the_run_without_the_kill_bit_by_bit(tmp_path):
    flags = {"g_sn": True, "n_dis": 2, "lr_decay": "linear"}
    stages = []
    for model in ("dcgan", "resnet", "mlp"):
        stages.append((2, called("whole_run", f"{tmp_path}/{model}", {**flags, "model": model})))
        stages.append((2, called("killed_run", f"{tmp_path}/{model}_killed", {**flags, "model": model})))
        stages.append((2, called("resumed_run", f"{tmp_path}/{model}_killed")))
    results = run_stages(BODY, stages)
    for i, model in enumerate(("dcgan", "resnet", "mlp")):
        whole, killed, resumed = results[3 * i : 3 * i + 3]
        assert (whole["codes"], killed["codes"], resumed["codes"]) == ([0, 0], [-9, -9], [0, 0]), resumed["printed"]
        assert "resumed     at step 5" in resumed["printed"]
        finals = [tmp_path / name / "checkpoints" / "step_000012.pt" for name in (model, f"{model}_killed")]
        assert same(*map(checkpoint.load, finals))
        assert timeless(tmp_path / model) == timeless(tmp_path / f"{model}_killed")


def test_a_run_on_two_ranks_ends_as_one_with_one_message(tmp_path):
    names = ("one_is_killed", "one_raises", "one_has_nan", "one_is_signalled", "writes_are_listed")
    stages = [(2, called(name, f"{tmp_path}/{name}")) for name in names]
    stages.append((1, called("resumed_run", f"{tmp_path}/one_is_signalled", {"total_steps": 15})))
    killed, raised, nan, signalled, listed, alone = run_stages(BODY, stages)

    assert killed["codes"] == [1, -9]
    assert killed["printed"].count("stops, since another process has ended") == 1

    assert raised["codes"] == [1, 2]
    assert "process 1: error: out of memory with batch_size 8: " in raised["printed"]
    assert "--accumulate 2" in raised["printed"] and "Traceback" not in raised["printed"]

    assert nan["codes"] == [3, 3]
    assert nan["printed"].count("error: loss_D is not finite at step 1") == 1, nan["printed"]

    assert signalled["codes"] == [143, 143]
    assert signalled["printed"].count("SIGTERM: stopped after step 7 and saved") == 1, signalled["printed"]

    assert listed["codes"] == [0, 0]
    assert "<rank 1 wrote 0>" in listed["printed"] and "<rank 0 wrote 0>" not in listed["printed"]
    assert listed["printed"].count("networks    dcgan") == 1
    assert [line["step"] for line in read_stats(tmp_path / "writes_are_listed")] == [4, 8, 12]

    assert alone["codes"] == [0] and "changed     processes 2 -> 1" in alone["printed"], alone["printed"]
    assert "changed     total_steps 12 -> 15" in alone["printed"]


@pytest.mark.slow
def test_torchrun_starts_a_run(tmp_path, run_script):
    flags = [f"--{name}={value}" for name, value in (SMALL | {"total_steps": 3, "save_every": 2}).items()]
    launch = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "train.py")
    done = run_script(*launch, *flags, "--run_dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "on 2 processes, cpu" in done.stdout and done.stdout.count("done. Score it") == 1


# ---- Shares and parts of a batch -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "world", "refused"),
    [
        ({"batch_size": 64}, 2, None),
        ({"batch_size": 64, "batch_size_G": 128, "accumulate": 4}, 8, None),
        ({"batch_size": 64}, 3, "batch_size 64 .* 3 processes in 1 parts .* multiple of 3"),
        ({"batch_size": 64, "batch_size_G": 100}, 8, "batch_size_G 100 .* multiple of 8"),
        ({"batch_size": 64, "accumulate": 64}, 1, "batch_size 64 .* 64 parts"),
    ],
)
def test_batches_that_do_not_divide_are_refused(monkeypatch, flags, world, refused):
    monkeypatch.setattr("utils.distributed.world_size", lambda: world)
    config, _ = resolve(flags)
    if refused is None:
        check_shares(config)
    else:
        with pytest.raises(UserError, match=refused):
            check_shares(config)


@pytest.mark.parametrize("penalty", ["none", "gradient_penalty", "r1", "orthonormal"])
@pytest.mark.parametrize("model", ["dcgan", "resnet", "mlp"])
def test_an_update_of_D_in_parts_is_the_update_at_once(model, penalty):
    updated = []
    for accumulate in (1, 4):
        torch.manual_seed(3)
        G, D = (net.double() for net in build_models(model, 8, 1, 8, 4, d_norm="spectral"))
        real, z, alpha = torch.rand(8, 1, 8, 8).double(), torch.randn(8, 8).double(), torch.rand(8, 1, 1, 1).double()
        optimizer = torch.optim.SGD(D.parameters(), lr=1.0)
        objective = Objective(*LOSSES["bce"], ((REGULARIZERS[penalty], 0.1),), accumulate=accumulate)
        found = train.discriminator_step(G, D, optimizer, Batch(z, real, alpha), objective)
        updated.append([*D.state_dict().values(), *found])
    for whole, parts in zip(*updated, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-11, atol=1e-12)


def test_an_update_of_G_in_parts_is_the_update_at_once():
    updated = []
    for accumulate in (1, 3):
        torch.manual_seed(3)
        G, D = torch.nn.Linear(4, 64).double(), build_models("mlp", 8, 1, 4, 4)[1].double()
        pictures = torch.nn.Sequential(G, torch.nn.Unflatten(1, (1, 8, 8)))
        optimizer = torch.optim.SGD(G.parameters(), lr=1.0)
        z = torch.randn(6, 4).double()
        objective = Objective(*LOSSES["hinge"], accumulate=accumulate)
        loss = train.generator_step(pictures, D, optimizer, Batch(z), objective)
        updated.append([loss, *G.parameters(), *D.state_dict().values()])
    for whole, parts in zip(*updated, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-12)


def test_a_run_accumulates_and_may_do_so_from_a_resume_on(tmp_path):
    flags = SMALL | {"total_steps": 2, "run_dir": str(tmp_path / "run")}
    train.train(prepare(flags))
    train.train(prepare({"resume": str(tmp_path / "run"), "total_steps": 4, "accumulate": 2}))
    assert "changed     accumulate 1 -> 2" in (tmp_path / "run" / "log.txt").read_text()
    assert json.loads((tmp_path / "run" / "stats.jsonl").read_text().splitlines()[-1])["step"] == 4
