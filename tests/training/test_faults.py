"""What goes wrong in long runs, made to happen: each ends in the documented answer (docs/faults.md), nothing lost."""

import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
import yaml
from helpers import ROOT, SMALL

import train
import training.run
from training import checkpoint, monitor
from training.logger import Logger, read_stats
from training.resume import prepare
from training.run_dir import checkpoints, latest, locked
from utils.config import stored
from utils.console import Outlet
from utils.errors import Diverged, Stopped, UserError
from utils.files import save
from utils.settings import read_yaml

FAST = SMALL | {"total_steps": 12, "save_every": 5, "sample_every": 100, "log_every": 2}


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Curves and animation are most of the time of a run of a few steps."""
    monkeypatch.setattr(monitor, "finish_pictures", lambda *args: None)


def start(tmp_path, name="run", **flags):
    return prepare({**FAST, "run_dir": str(tmp_path / name), **flags})


def go_on(tmp_path, name="run", **flags):
    return train.train(prepare({"resume": str(tmp_path / name), **flags}))


def at_step(monkeypatch, number, do):
    """Have do() happen in the middle of step `number`, once."""
    plain, calls = train.generator_step, []

    def wrapped(*args):
        calls.append(None)
        if len(calls) == number:
            do()
        return plain(*args)

    monkeypatch.setattr(train, "generator_step", wrapped)


def steps_of(run_dir):
    return [step for step, _ in checkpoints(run_dir)]


def same_end(a, b):
    """Whether two finished runs hold the same weights, bit for bit, and the same statistics."""
    first, second = (checkpoint.load(latest(run_dir)) for run_dir in (a, b))
    lines = [[line | {"seconds_per_step": 0} for line in read_stats(run_dir)] for run_dir in (a, b)]
    return lines[0] == lines[1] and all(
        torch.equal(first[name][key], second[name][key]) for name in ("G", "D", "ema") for key in first[name]
    )


# ---- Disks ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def file_size_limit():
    """A limit on the size of files, which the kernel enforces as it does a full disk; lifted at the end."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_while_saving_stops_the_run_and_loses_no_checkpoint(tmp_path, monkeypatch):
    train.train(start(tmp_path, "whole"))
    with file_size_limit() as fill, monkeypatch.context() as patched:
        at_step(patched, 8, fill)
        with pytest.raises(UserError, match=r"cannot write .*step_000010.pt: "):
            train.train(start(tmp_path))
    assert sorted(os.listdir(tmp_path / "run" / "checkpoints")) == ["step_000000.pt", "step_000005.pt"]
    go_on(tmp_path)
    assert same_end(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize("name", ["_stats", "_text"])
def test_a_disk_that_is_full_while_logging_stops_the_run(tmp_path, monkeypatch, name):
    loggers = []

    class Remembered(Logger):
        def __init__(self, *args):
            super().__init__(*args)
            loggers.append(self)

    def fill():
        os.dup2(os.open("/dev/full", os.O_WRONLY), getattr(loggers[0], name).fileno())
        os.kill(os.getpid(), signal.SIGUSR1)  # which has something said

    monkeypatch.setattr(training.run, "Logger", Remembered)
    at_step(monkeypatch, 7, fill)
    with pytest.raises(UserError, match=f"cannot write into .*No space left on device; --resume {tmp_path}/run"):
        train.train(start(tmp_path))
    assert 5 in steps_of(tmp_path / "run")
    monkeypatch.undo()
    assert checkpoint.load(go_on(tmp_path))["step"] == 12
    assert [line["step"] for line in read_stats(tmp_path / "run")] == [2, 4, 6, 8, 10, 12]


def test_a_place_where_no_run_can_be_written_is_told_before_the_first_step(tmp_path):
    with pytest.raises(UserError, match=r"/proc/sngan"):
        train.train(prepare({**FAST, "run_dir": "/proc/sngan"}))
    train.train(start(tmp_path, total_steps=2))
    if os.geteuid() == 0:  # for whom nothing is read-only
        pytest.skip("root can write anywhere")
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


# ---- Checkpoints ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["truncated", "a bit flipped", "empty", "another file"])
def test_a_damaged_newest_checkpoint_is_set_aside_and_the_one_before_is_taken(tmp_path, capsys, damage):
    path = train.train(start(tmp_path))
    whole = path.read_bytes()
    torch.save({"weights": torch.zeros(3)}, path)
    other = path.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    path.write_bytes({"truncated": whole[:1000], "a bit flipped": flipped, "empty": b"", "another file": other}[damage])
    capsys.readouterr()
    assert checkpoint.load(go_on(tmp_path))["step"] == 12
    printed = capsys.readouterr().out
    assert "resumed     at step 10" in printed
    assert "step_000012.pt is not a checkpoint of this project" in printed and "is set aside" in printed
    assert sorted(os.listdir(path.parent))[-2:] == ["step_000012.pt", "step_000012.pt.damaged"]
    assert [line["step"] for line in read_stats(tmp_path / "run")] == [2, 4, 6, 8, 10, 12]


def test_a_newest_checkpoint_that_is_whole_but_cannot_be_used_is_not_passed_over(tmp_path):
    path = train.train(start(tmp_path))
    rewrite(path, lambda content: content["config"].update(label_smoothing=0.1))
    with pytest.raises(UserError, match=r"step_000012.pt.*label_smoothing"):
        go_on(tmp_path, total_steps=14)
    assert steps_of(tmp_path / "run") == [5, 10, 12]


def test_a_checkpoint_of_another_kind_of_device_goes_on_with_other_random_numbers_and_says_so(tmp_path, capsys):
    path = train.train(start(tmp_path, total_steps=2))
    rewrite(path, lambda content: content.update(random=torch.zeros(16, dtype=torch.uint8)))  # as CUDA's are
    assert checkpoint.load(go_on(tmp_path, total_steps=4))["step"] == 4
    assert "changed     the checkpoint is of another kind of device" in capsys.readouterr().out


def test_a_tensor_that_stands_for_more_than_its_file_is_refused(tmp_path):
    path = train.train(start(tmp_path, total_steps=2))
    rewrite(path, lambda content: content["G"].update({"project.weight": torch.zeros(1).expand(10**12)}))
    with pytest.raises(UserError, match="is damaged, or no such file"):
        checkpoint.load(path)


def test_a_nan_is_found_before_the_samples_are_scored(tmp_path, monkeypatch, data_dir):
    break_losses(monkeypatch, {3})
    with pytest.raises(Diverged, match="loss_D is not finite at step 3"):
        train.train(start(tmp_path, eval_every=4, log_every=100, data_dir=data_dir))


def test_a_second_start_of_a_run_that_began_meanwhile_is_refused(tmp_path, monkeypatch):
    config = start(tmp_path, total_steps=2)
    train.train(config)
    monkeypatch.setattr(training.run, "refuse_existing", lambda run_dir: None)  # it had looked before the other began
    with pytest.raises(UserError, match="was started by another process meanwhile"):
        train.train(config)


def test_a_run_whose_checkpoints_are_all_damaged_says_why(tmp_path):
    train.train(start(tmp_path))
    for _, path in checkpoints(tmp_path / "run"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"holds no checkpoint that can be read: .*step_000012.pt.*step_000005.pt"):
        go_on(tmp_path)


KILLED_WHILE_SAVING = """
import os, signal, sys
import torch, train
plain, calls = torch.save, []
def half(content, path):
    calls.append(None)
    plain(content, path)
    if len(calls) == 3:
        os.truncate(path, os.path.getsize(path) // 2)
        os.kill(os.getpid(), signal.SIGKILL)
torch.save = half
sys.argv = ["train.py", *sys.argv[1:]]
train.main()
"""


def test_a_run_that_is_killed_while_it_writes_a_checkpoint_goes_on_from_the_one_before(tmp_path):
    train.train(start(tmp_path, "whole"))
    typed = [f"--{name}={value}" for name, value in FAST.items()] + [f"--run_dir={tmp_path / 'run'}"]
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_SAVING, *typed], cwd=ROOT, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (tmp_path / "run" / "checkpoints" / "step_000010.pt.tmp").exists()
    assert steps_of(tmp_path / "run") == [0, 5]
    go_on(tmp_path)
    assert same_end(tmp_path / "whole", tmp_path / "run")
    assert not list((tmp_path / "run" / "checkpoints").glob("*.tmp"))


def rewrite(path, change):
    content = checkpoint.load(path)
    change(content)
    save(path, content)


def test_a_checkpoint_of_a_version_without_a_setting_takes_its_default_and_says_so(tmp_path, capsys):
    path = train.train(start(tmp_path, total_steps=2))
    rewrite(path, lambda content: [content["config"].pop(name) for name in ("accumulate", "on_nan")])
    rewrite(path, lambda content: [content.pop(name) for name in ("rollbacks", "scalers")])
    assert checkpoint.load(go_on(tmp_path, total_steps=4))["step"] == 4
    assert "step_000002.pt is of a version without accumulate, on_nan: their defaults" in capsys.readouterr().out


def test_a_checkpoint_with_other_statistics_of_its_last_steps_goes_on_without_them(tmp_path, capsys):
    path = train.train(start(tmp_path, total_steps=3, save_every=3, log_every=2))
    rewrite(path, lambda content: content.update(pending=torch.ones(1, 4)))
    go_on(tmp_path, total_steps=4)
    assert "has other statistics of its last steps" in capsys.readouterr().out
    assert [line["step"] for line in read_stats(tmp_path / "run")] == [2, 3, 4]


def test_the_settings_of_an_optimizer_of_another_version_of_torch_are_replaced(tmp_path):
    def change(content):
        group = content["opt_G"]["param_groups"][0]
        del group["decoupled_weight_decay"]  # which older versions do not have
        group |= {"lr": 7.0, "of_another_version": True}

    train.train(start(tmp_path, "whole", total_steps=4))
    path = train.train(start(tmp_path, total_steps=2))
    rewrite(path, change)
    go_on(tmp_path, total_steps=4)
    assert same_end(tmp_path / "whole", tmp_path / "run")


def test_a_checkpoint_with_a_setting_of_a_newer_version_is_refused(tmp_path):
    train.train(start(tmp_path, total_steps=2))
    for _, path in checkpoints(tmp_path / "run"):
        rewrite(path, lambda content: content["config"].update(label_smoothing=0.1))
    with pytest.raises(UserError, match=r"unknown setting 'label_smoothing'.*newer version"):
        go_on(tmp_path, total_steps=4)


# ---- Processes -----------------------------------------------------------------------------------------------------


def test_two_processes_on_one_run_directory_are_refused_with_host_and_number_of_the_first(tmp_path):
    train.train(start(tmp_path, total_steps=2))
    holder = f"process {os.getpid()} on {socket.gethostname()}"
    with locked(tmp_path / "run"), pytest.raises(UserError, match=f"is being trained by {holder}"):
        go_on(tmp_path, total_steps=4)
    assert checkpoint.load(go_on(tmp_path, total_steps=4))["step"] == 4
    assert not (tmp_path / "run" / ".lock").exists()


def test_the_lock_of_a_killed_process_holds_nobody_up(tmp_path):
    body = "import os, sys; from training import run_dir; a = run_dir.locked(sys.argv[1]); a.__enter__(); "
    body += "os.kill(os.getpid(), 9)"
    train.train(start(tmp_path, total_steps=2))
    killed = subprocess.run([sys.executable, "-c", body, str(tmp_path / "run")], cwd=ROOT)
    assert killed.returncode == -9 and (tmp_path / "run" / ".lock").exists()
    assert checkpoint.load(go_on(tmp_path, total_steps=4))["step"] == 4


def test_sigusr1_saves_and_the_run_goes_on(tmp_path, monkeypatch):
    train.train(start(tmp_path, "whole"))
    at_step(monkeypatch, 7, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    train.train(start(tmp_path, keep=10))
    assert steps_of(tmp_path / "run") == [0, 5, 7, 10, 12]
    assert "SIGUSR1     saved" in (tmp_path / "run" / "log.txt").read_text()
    assert same_end(tmp_path / "whole", tmp_path / "run")


def test_a_terminal_that_is_closed_stops_the_run_saved_and_nohup_keeps_it_going(tmp_path, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup themselves
    try:
        with monkeypatch.context() as patched:
            at_step(patched, 7, lambda: os.kill(os.getpid(), signal.SIGHUP))
            with pytest.raises(Stopped, match="SIGHUP: stopped after step 7 and saved"):
                train.train(start(tmp_path))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        at_step(monkeypatch, 2, lambda: os.kill(os.getpid(), signal.SIGHUP))
        assert checkpoint.load(go_on(tmp_path))["step"] == 12
    finally:
        signal.signal(signal.SIGHUP, before)


def filled_pipe():
    """The ends of a pipe that takes not a byte more."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    return reading, writing


def closed_pipe():
    reading, writing = os.pipe()
    os.close(reading)
    return None, writing


def test_a_run_does_not_depend_on_a_reader_of_what_it_prints(tmp_path):
    (reading, full), (_, closed) = filled_pipe(), closed_pipe()
    command = [sys.executable, "train.py", *(f"--{name}={value}" for name, value in FAST.items())]
    done = subprocess.run([*command, f"--run_dir={tmp_path}/run"], cwd=ROOT, stdout=full, stderr=closed, timeout=100)
    assert done.returncode == 0
    assert latest(tmp_path / "run").name == "step_000012.pt"
    assert "networks    dcgan" in (tmp_path / "run" / "log.txt").read_text()
    for end in (reading, full, closed):
        os.close(end)


@pytest.mark.parametrize("make", [filled_pipe, closed_pipe, lambda: (None, os.open("/dev/full", os.O_WRONLY))])
def test_an_outlet_forgives_whoever_does_not_read(make):
    reading, writing = make()
    with open(writing, "w") as stream:
        outlet = Outlet(stream)
        for _ in range(3):
            assert outlet.write("a line\n") == 7
            outlet.flush()
    if reading:
        assert os.read(reading, 4096) == b"x" * 4096  # nothing went into the full pipe
        os.close(reading)


def test_an_outlet_passes_on_what_can_be_written(tmp_path):
    with open(tmp_path / "a.txt", "w") as stream:
        Outlet(stream).write("a line\n")
        assert (tmp_path / "a.txt").read_text() == "a line\n"
    assert Outlet(stream).write("closed\n") == 7
    assert Outlet(None).write("nowhere\n") == 8


def test_a_clock_that_jumps_changes_nothing(tmp_path, monkeypatch):
    train.train(start(tmp_path, "whole"))
    moment = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(moment)))  # back an hour each time that somebody asks
    train.train(start(tmp_path))
    assert same_end(tmp_path / "whole", tmp_path / "run")
    assert all(0 < line["seconds_per_step"] < 60 for line in read_stats(tmp_path / "run"))
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["record"][0]["wall_seconds"] >= 0


# ---- Memory and numbers --------------------------------------------------------------------------------------------


def no_memory_on_the_cpu():
    torch.empty(2**50)


def no_memory_on_the_gpu():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.parametrize("happen", [no_memory_on_the_cpu, no_memory_on_the_gpu])
def test_memory_that_runs_out_names_the_batch_size_and_what_to_do(tmp_path, monkeypatch, happen):
    at_step(monkeypatch, 7, happen)
    with pytest.raises(UserError, match=r"out of memory with batch_size 8 and 16 for G: .*--accumulate 2"):
        train.train(start(tmp_path, batch_size_G=16))
    monkeypatch.undo()
    assert checkpoint.load(go_on(tmp_path, accumulate=2))["step"] == 12


def test_an_error_of_the_program_itself_is_not_taken_for_one_of_memory(tmp_path, monkeypatch):
    def bug():
        raise RuntimeError("shapes do not match")

    at_step(monkeypatch, 2, bug)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        train.train(start(tmp_path))


def break_losses(monkeypatch, numbers):
    """Have the losses of D's updates with these numbers, counted over all, be NaN."""
    plain, calls = train.discriminator_step, []

    def wrapped(*args):
        loss, real, fake = plain(*args)
        calls.append(None)
        return (loss * float("nan") if len(calls) in numbers else loss), real, fake

    monkeypatch.setattr(train, "discriminator_step", wrapped)


def test_rollback_goes_back_to_the_last_good_checkpoint_with_another_seed(tmp_path, monkeypatch, capsys):
    train.train(start(tmp_path, "whole"))
    with monkeypatch.context() as patched:
        break_losses(patched, {8})
        train.train(start(tmp_path, on_nan="rollback"))
    assert "rollback    loss_D is not finite at step 8" in capsys.readouterr().out
    found = checkpoint.load(latest(tmp_path / "run"))
    assert (found["step"], found["rollbacks"]) == (12, 1)
    assert found["data"]["seed"] != 0
    assert [line["step"] for line in read_stats(tmp_path / "run")] == [2, 4, 6, 8, 10, 12]
    before, after = (read_stats(tmp_path / name) for name in ("whole", "run"))
    assert [line["loss_D"] for line in before[:2]] == [line["loss_D"] for line in after[:2]]
    assert before[2]["loss_D"] != after[2]["loss_D"]


def test_a_run_that_was_rolled_back_resumes_exactly(tmp_path, monkeypatch):
    for name, total in (("whole", 12), ("run", 10)):
        with monkeypatch.context() as patched:
            break_losses(patched, {8})
            train.train(start(tmp_path, name, on_nan="rollback", total_steps=total))
    go_on(tmp_path, total_steps=12)
    assert same_end(tmp_path / "whole", tmp_path / "run")


def test_rollback_gives_up_after_three_times(tmp_path, monkeypatch, capsys):
    break_losses(monkeypatch, range(7, 1000))
    with pytest.raises(Diverged, match=r"last good checkpoint is .*step_000005.pt. 3 times it went back"):
        train.train(start(tmp_path, on_nan="rollback"))
    assert capsys.readouterr().out.count("rollback ") == 3
    assert checkpoint.load(latest(tmp_path / "run"))["rollbacks"] == 3


# ---- What a run says about itself ----------------------------------------------------------------------------------


def test_config_yaml_records_how_the_run_came_about_at_each_start_and_is_a_config_still(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--run_dir", "with a space"])
    config = start(tmp_path, total_steps=2)
    train.train(config)
    go_on(tmp_path, total_steps=4)
    path = tmp_path / "run" / "config.yaml"
    first, second = yaml.safe_load(path.read_text())["record"]
    assert first["command"].endswith("train.py --run_dir 'with a space'")
    assert first["host"] == socket.gethostname()
    assert first["versions"]["torch"] == torch.__version__
    described = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    assert first["commit"] in (None, described, f"{described}-dirty") and (described == "") == (first["commit"] is None)
    assert [(entry["from_step"], entry["to_step"]) for entry in (first, second)] == [(0, 2), (2, 4)]
    assert all(entry["wall_seconds"] > 0 and entry["processes"] == 1 for entry in (first, second))
    expected = {**stored(config), "total_steps": 4}
    assert read_yaml(path) == {k: tuple(v) if isinstance(v, list) else v for k, v in expected.items()}


def test_a_resume_says_what_differs_from_the_last_start(tmp_path, capsys):
    train.train(start(tmp_path, total_steps=2))
    path = tmp_path / "run" / "config.yaml"
    content = yaml.safe_load(path.read_text())
    content["record"][0]["versions"]["torch"] = "1.13.1"
    path.write_text(yaml.safe_dump(content))
    capsys.readouterr()
    go_on(tmp_path, total_steps=4, log_every=1)
    printed = capsys.readouterr().out
    assert "changed     total_steps 2 -> 4\n" in printed and "changed     log_every 2 -> 1\n" in printed
    assert "torch 1.13.1" in printed and "threads" not in printed.split("changed     versions")[0]


def test_a_record_that_somebody_broke_is_begun_anew(tmp_path):
    train.train(start(tmp_path, total_steps=2))
    (tmp_path / "run" / "config.yaml").write_text("record: [*a, &a {}]")
    go_on(tmp_path, total_steps=4)
    assert len(yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["record"]) == 1


def test_statistics_can_be_read_while_they_are_written(tmp_path, monkeypatch):
    seen = []
    at_step(monkeypatch, 7, lambda: seen.append([line["step"] for line in read_stats(tmp_path / "run")]))
    train.train(start(tmp_path))
    assert seen == [[2, 4, 6]]


def test_deterministic_runs_are_the_same_bits(tmp_path):
    try:
        for name in ("first", "second"):
            train.train(start(tmp_path, name, deterministic=True, model="resnet"))
            assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert same_end(tmp_path / "first", tmp_path / "second")
