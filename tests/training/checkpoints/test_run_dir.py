"""A run's directory: its checkpoints, when it is refused, disks that are full or gone, and who trains in it."""

import contextlib
import os
import resource
import shutil
import signal
import socket

import pytest
from helpers import FAST, assert_same_end, at_step, go_on, logged, start, steps_of

import train
import training.session
from training import prepare
from training.checkpoints import checkpoint
from training.checkpoints.run_dir import checkpoint_path, checkpoints, is_trained, latest, locked, nearby, thin
from training.reporting.logger import Logger
from utils.errors import UserError

pytestmark = pytest.mark.usefixtures("no_pictures")

# ---- Its checkpoints -----------------------------------------------------------------------------------------------


def touch_checkpoints(run_dir, steps):
    (run_dir / "checkpoints").mkdir()
    for step in steps:
        checkpoint_path(run_dir, step).touch()


def test_checkpoints_are_ordered_by_step_past_a_million(tmp_path):
    touch_checkpoints(tmp_path, [1_000_000, 0, 999_999, 5000, 20_000_000])
    (tmp_path / "checkpoints" / "step_000010.pt.tmp").touch()
    (tmp_path / "checkpoints" / "step_last.pt").touch()
    assert [step for step, _ in checkpoints(tmp_path)] == [0, 5000, 999_999, 1_000_000, 20_000_000]
    assert latest(tmp_path).name == "step_20000000.pt"


def test_thinning_keeps_the_newest(tmp_path):
    touch_checkpoints(tmp_path, [0, 900_000, 1_000_000, 1_100_000])
    thin(tmp_path, 2)
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["step_1000000.pt", "step_1100000.pt"]
    thin(tmp_path, 5)
    assert len(checkpoints(tmp_path)) == 2


def test_a_run_without_checkpoints_says_so(tmp_path):
    assert checkpoints(tmp_path) == []
    with pytest.raises(UserError, match=f"{tmp_path} holds no checkpoint"):
        latest(tmp_path)


def test_whoever_names_a_run_that_is_not_there_is_told_which_are_newest_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^there is no run runs/demo\. There are no runs yet: python main.py makes"):
        latest("runs/demo")
    for age, name in enumerate(("a", "d", "c", "b")):
        (tmp_path / "runs" / name).mkdir(parents=True)
        touch_checkpoints(tmp_path / "runs" / name, [5, 10])
        for _, path in checkpoints(tmp_path / "runs" / name):
            os.utime(path, (1e9 - age, 1e9 - age))
    newest = r"Runs, newest first: runs/a, runs/d, runs/c and 1 more$"
    for wrong in ("runs/demo", "demo", "runs/demo/checkpoints/step_000005.pt", tmp_path / "runs" / "demo"):
        with pytest.raises(UserError, match=rf"^there is no checkpoint {wrong}, nor a run of that name\. {newest}"):
            checkpoint.load(wrong)
    with pytest.raises(UserError, match=rf"^runs holds no checkpoint. {newest}"):
        latest("runs")
    with pytest.raises(UserError, match=r"^runs/b/checkpoints is a part of a run. Runs, newest first: runs/b, "):
        latest("runs/b/checkpoints")
    for inside in ("runs/b/checkpoints", "runs/b/checkpoints/step_000007.pt"):  # whose own run goes first
        assert nearby(inside) == "Runs, newest first: runs/b, runs/a, runs/d and 1 more"
    assert nearby("runs/b/checkpoints/step_000005") == "Did you mean runs/b/checkpoints/step_000005.pt?"
    (tmp_path / "mnist.json").touch()
    (tmp_path / "mnist.safetensors").touch()
    assert nearby("mnist") == "Did you mean mnist.safetensors?"


# ---- Disks ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def file_size_limit():
    """A limit on the size of files, which the kernel enforces as it does a full disk; lifted at the end."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_while_saving_stops_the_run_and_loses_no_checkpoint(tmp_path, whole, monkeypatch):
    with file_size_limit() as fill, monkeypatch.context() as patched:
        at_step(patched, 8, fill)
        with pytest.raises(UserError, match=r"cannot write .*step_000010.pt: "):
            train.train(start(tmp_path))
    assert sorted(os.listdir(tmp_path / "run" / "checkpoints")) == ["step_000000.pt", "step_000005.pt"]
    go_on(tmp_path)
    assert_same_end(whole, tmp_path / "run")


@pytest.mark.parametrize("name", ["_stats", "_text"])
def test_a_disk_that_is_full_while_logging_stops_the_run(tmp_path, monkeypatch, name):
    loggers = []

    class Remembered(Logger):
        def __init__(self, *args):
            super().__init__(*args)
            loggers.append(self)

    def fill():
        os.dup2(os.open("/dev/full", os.O_WRONLY), getattr(loggers[0], name).fileno())
        signal.raise_signal(signal.SIGUSR1)  # which has something said

    with monkeypatch.context() as patched:
        patched.setattr(training.session, "Logger", Remembered)
        at_step(patched, 7, fill)
        with pytest.raises(UserError, match=f"cannot write into .*No space left on device; --resume {tmp_path}/run"):
            train.train(start(tmp_path))
    assert 5 in steps_of(tmp_path / "run")
    assert checkpoint.read(go_on(tmp_path))["step"] == 12
    assert logged(tmp_path / "run") == [2, 4, 6, 8, 10, 12]


def test_a_place_where_no_run_can_be_written_is_told_before_the_first_step():
    with pytest.raises(UserError, match=r"/proc/sngan"):
        train.train(prepare({**FAST, "run_dir": "/proc/sngan"}))


@pytest.mark.skipif(os.geteuid() == 0, reason="for root nothing is read-only")
def test_a_run_directory_that_is_read_only_is_told_before_the_first_step(tmp_path):
    train.train(start(tmp_path, total_steps=2))
    (tmp_path / "run").chmod(0o555)
    with pytest.raises(UserError, match="cannot write into"):
        go_on(tmp_path, total_steps=4)
    (tmp_path / "run").chmod(0o755)


def test_a_run_directory_that_is_removed_stops_the_run(tmp_path, monkeypatch):
    at_step(monkeypatch, 7, lambda: shutil.rmtree(tmp_path / "run"))
    with pytest.raises(UserError, match=r"cannot write .*run.*: .*(does not exist|No such file)"):
        train.train(start(tmp_path))
    assert not (tmp_path / "run").exists()


def test_the_disk_use_that_is_stated_is_not_exceeded(tmp_path, capsys):
    path = train.train(start(tmp_path, total_steps=20, keep=2, base_channels=16))
    stated = int(capsys.readouterr().out.split("up to ")[1].split(" MiB")[0].replace(",", ""))
    used = sum(file.stat().st_size for file in path.parent.iterdir())
    assert 0.3 * stated * 2**20 < used < (stated + 1) * 2**20


def test_a_disk_too_small_is_refused_before_the_first_step(tmp_path, monkeypatch):
    usage = type("usage", (), {"free": 50 * 2**20})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(UserError, match="50 MiB are free"):
        train.train(start(tmp_path))
    assert not (tmp_path / "run").exists()


# ---- Other processes -----------------------------------------------------------------------------------------------


def test_a_run_never_overwrites_another(tmp_path):
    train.train(start(tmp_path, total_steps=2))
    with pytest.raises(UserError, match=r"exists, and a run never overwrites another. Continue it with --resume"):
        start(tmp_path)


def test_a_second_start_of_a_run_that_began_meanwhile_is_refused(tmp_path, monkeypatch):
    config = start(tmp_path, total_steps=2)
    train.train(config)
    monkeypatch.setattr("training.session.refuse_existing", lambda _: None)  # it had looked before the other began
    with pytest.raises(UserError, match="was started by another process meanwhile"):
        train.train(config)


def test_two_processes_on_one_run_directory_are_refused_with_host_and_number_of_the_first(tmp_path):
    train.train(start(tmp_path, total_steps=2))
    holder = f"process {os.getpid()} on {socket.gethostname()}"
    with locked(tmp_path / "run"), pytest.raises(UserError, match=f"is being trained by {holder}"):
        go_on(tmp_path, total_steps=4)
    assert checkpoint.read(go_on(tmp_path, total_steps=4))["step"] == 4
    assert not is_trained(tmp_path / "run")


def test_the_lock_of_a_killed_process_holds_nobody_up(tmp_path, forks):
    body = "import os, sys; from training.checkpoints import run_dir; a = run_dir.locked(sys.argv[1]); a.__enter__(); "
    body += "os.kill(os.getpid(), 9)"
    train.train(start(tmp_path, total_steps=2))
    killed = forks.run(body, tmp_path / "run")
    assert killed.returncode == -9
    assert checkpoint.read(go_on(tmp_path, total_steps=4))["step"] == 4
