"""Training on several ranks: the same run as on one, one writer, one message when it ends."""

import sys

import pytest
import torch
from helpers import SMALL, assert_same, assert_same_end, logged

from settings.layers import resolve
from training.session import check_shares
from utils.errors import UserError

# Rounding of 1e-17 in a gradient, over Adam's eps of 1e-8, moves a weight by 1e-9; how often depends on the processor.
CLOSE = 1e-8
BODY = """
import builtins, os, signal, sys
import torch
import train
import utils.precision
from datasets import load_split
from helpers import FAST, SMALL, at_step, break_losses
from training import prepare
from training.reporting.showing import Show
from training.state import State
from utils.distributed import processes, rank, world_size
from utils.errors import run_as_script
from settings.layers import resolve

FAST |= {"sample_every": 6, "log_every": 4}
torch.set_num_threads(1)
utils.precision.bf16_gain = lambda: 2.0  # whatever this processor is
Show.end = lambda *args: None  # most of the time of such a run

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

def killed_run(run_dir, flags=None):
    at_step(builtins, 9, lambda: os.kill(os.getpid(), signal.SIGKILL))
    whole_run(run_dir, flags)

def one_is_killed(run_dir):
    if os.environ["RANK"] == "1":
        at_step(builtins, 3, lambda: os.kill(os.getpid(), signal.SIGKILL))
    whole_run(run_dir)

def one_raises(run_dir):
    def full():
        raise torch.OutOfMemoryError("CUDA out of memory: not a byte left")
    if os.environ["RANK"] == "1":
        at_step(builtins, 3, full)
    whole_run(run_dir)

def one_has_nan(run_dir):
    if os.environ["RANK"] == "1":
        break_losses(builtins, range(1000))
    whole_run(run_dir)

def one_is_signalled(run_dir):
    if os.environ["RANK"] == "1":
        at_step(builtins, 7, lambda: os.kill(os.getpid(), signal.SIGTERM))
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
    "dcgan, batch norm in D": {"model": "dcgan", "d_norm": ("spectral", "batch"), "loss": "bce"},
    "resnet, gradient penalty": {"model": "resnet", "d_norm": ("layer",), "regularizer": ("gradient_penalty",)},
    "dcgan, augmented adaptively": {
        "augment": ("color", "translation", "cutout"),
        "augment_p": "adaptive",
        "regularizer": ("r1",),
    },
    "mlp, augmented, p by the middle": {
        "model": "mlp",
        "loss": "wasserstein",
        "augment": ("cutout", "color"),
        "augment_p": "adaptive",
    },
    "dcgan, relativistic, LeCam": {
        "loss": "relativistic",
        "regularizer": ("r1_r2", "lecam"),
        "regularizer_weight": (0.5, 0.3),
        "lecam_start": 3,
        "n_dis": 2,
    },
    "dcgan, lazy, with finite differences": {
        "regularizer": ("r1", "approximate_r2"),
        "regularizer_every": 3,
        "n_dis": 2,
    },
    "mlp, spectral norm in G": {"model": "mlp", "g_sn": True, "loss": "wasserstein", "n_dis": 2},
}


def run(forks, ranks, name, *arguments):
    """Call a function of BODY on so many ranks."""
    return forks.run(f"{BODY}\nrun_as_script(lambda: {name}({', '.join(map(repr, arguments))}))", ranks=ranks)


@pytest.fixture(scope="module")
def ended(tmp_path_factory, forks):
    """What 8 steps of each of SETTINGS in float64 leave on one rank and on two, and 100 in float32 on two."""
    folder = tmp_path_factory.mktemp("ranks")
    stages = [(count, name, 8, "float64", flags) for name, flags in SETTINGS.items() for count in (1, 2)]
    for count, name, *rest in [*stages, (2, "long", 100, "float32", {"model": "dcgan", "g_sn": True})]:
        done = run(forks, count, "updates", f"{folder}/{name}", *rest)
        assert set(done.codes) == {0}, done.stderr
    return folder


@pytest.mark.parametrize("name", SETTINGS)
def test_two_ranks_make_the_updates_of_one(ended, name):
    alone, shared = (torch.load(ended / f"{name}_{count}_0.pt") for count in (1, 2))
    torch.testing.assert_close(shared["history"], alone["history"], rtol=CLOSE, atol=CLOSE)
    assert_same(shared["augment_p"], alone["augment_p"], "augment_p")
    for network in ("G", "D", "ema"):
        assert alone[network].keys() == shared[network].keys()
        for key, value in alone[network].items():
            torch.testing.assert_close(shared[network][key], value, rtol=CLOSE, atol=CLOSE, msg=key)


def test_weights_u_and_v_are_the_same_bits_on_all_ranks_after_100_steps(ended):
    first, second = (torch.load(ended / f"long_2_{rank}.pt") for rank in (0, 1))
    names = [name for name in first["D"] if name.endswith((".0.u", ".0.v"))]
    assert len(names) == 2 * 8
    for network in ("G", "D", "ema"):
        assert all(torch.equal(value, second[network][name]) for name, value in first[network].items())


@pytest.mark.parametrize("model", ["dcgan", "resnet", "mlp", "r3gan"])
def test_on_two_ranks_train_kill_resume_equals_the_run_without_the_kill_bit_by_bit(forks, tmp_path, model):
    flags = {"model": model, "g_sn": True, "n_dis": 2, "lr_decay": "linear"}
    flags |= {"amp": "bf16"} if model == "dcgan" else {}
    whole = run(forks, 2, "whole_run", f"{tmp_path}/whole", flags)
    killed = run(forks, 2, "killed_run", f"{tmp_path}/killed", flags)
    resumed = run(forks, 2, "resumed_run", f"{tmp_path}/killed")
    assert (whole.codes, killed.codes, resumed.codes) == ([0, 0], [-9, -9], [0, 0]), resumed.stderr
    assert "resumed     at step 5" in resumed.stdout
    assert logged(tmp_path / "whole") == [4, 8, 12]
    assert_same_end(tmp_path / "whole", tmp_path / "killed")


def test_a_process_that_is_killed_ends_the_others_with_a_message(forks, tmp_path):
    done = run(forks, 2, "one_is_killed", f"{tmp_path}/run")
    assert done.codes == [1, -9]
    assert done.stderr.count("stopped, since another process has ended") == 1


def test_a_process_without_memory_ends_the_others_and_says_what_to_do(forks, tmp_path):
    done = run(forks, 2, "one_raises", f"{tmp_path}/run")
    assert done.codes == [2, 2]
    assert (
        done.stderr.count("\nprocess 1: error: out of memory with batch_size 8: ") == 1 and "stops" not in done.stderr
    )
    assert "--accumulate 2" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"batch_size": 7}, "error: batch_size 7 cannot be split evenly"),  # found by each
        (
            {"dataset": "folder", "data_dir": "absent", "batch_size": 12},
            "error: images are read from",
        ),  # by the first, while others wait
        ({"loss": "wasserstein", "regularizer": ("weight_clipping",)}, "error: weight_clipping makes no sense"),
    ],
)
def test_an_error_of_the_user_is_said_once_and_ends_all_in_order(forks, tmp_path, ranks, flags, said):
    done = run(forks, ranks, "whole_run", f"{tmp_path}/run", flags)
    assert done.codes == [2] * ranks
    assert done.stderr.startswith(said) and done.stderr.count("\n") == 1


def test_a_nan_in_one_process_stops_both_with_one_message(forks, tmp_path):
    done = run(forks, 2, "one_has_nan", f"{tmp_path}/run")
    assert done.codes == [3, 3]
    assert done.stderr.count("error: loss_D is not finite at step 1") == 1, done.stderr


def test_a_signal_to_one_process_stops_both_saved_and_one_process_goes_on_alone(forks, tmp_path):
    done = run(forks, 2, "one_is_signalled", f"{tmp_path}/run")
    assert done.codes == [143, 143]
    assert done.stderr.count("SIGTERM: stopped after step 7 and saved") == 1, done.stderr
    alone = run(forks, 1, "resumed_run", f"{tmp_path}/run", {"total_steps": 15})
    assert alone.codes == [0] and "changed     processes 2 -> 1" in alone.stdout, alone.stderr
    assert "changed     total_steps 12 -> 15" in alone.stdout


def test_one_process_writes(forks, tmp_path):
    done = run(forks, 2, "writes_are_listed", f"{tmp_path}/run")
    assert done.codes == [0, 0]
    assert "<rank 1 wrote 0>" in done.stdout and "<rank 0 wrote 0>" not in done.stdout
    assert done.stdout.count("networks    dcgan") == 1
    assert logged(tmp_path / "run") == [4, 8, 12]


@pytest.mark.slow
def test_torchrun_starts_a_run(tmp_path, run_script):
    flags = [f"--{name}={value}" for name, value in (SMALL | {"total_steps": 3, "save_every": 2}).items()]
    launch = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "train.py")
    done = run_script(*launch, *flags, "--run_dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "on 2 processes, cpu" in done.stdout and done.stdout.count("done. Score it") == 1


# ---- Shares of a batch ---------------------------------------------------------------------------------------------


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
    monkeypatch.setattr("training.session.world_size", lambda: world)
    config, _ = resolve(flags)
    if refused is None:
        check_shares(config)
    else:
        with pytest.raises(UserError, match=refused):
            check_shares(config)
