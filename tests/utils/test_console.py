"""What is there instead of a terminal: pipes that nobody reads any more, full disks, nothing at all."""

import inspect
import io
import os
import threading

import pytest
from helpers import FAST

from training.checkpoints.run_dir import latest
from utils.console import PATIENCE, Outlet, announced
from utils.launcher import VARIABLES


def closed_pipe():
    """The end of a pipe into which nothing can be written, since nobody has the other."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.parametrize("make", [closed_pipe, lambda: os.open("/dev/full", os.O_WRONLY)])
def test_an_outlet_forgives_whoever_does_not_read(make):
    with open(make(), "w") as stream:
        outlet = Outlet(stream)
        for _ in range(3):
            assert outlet.write("a line\n") == 7
            outlet.flush()
        assert not outlet.isatty()


def test_an_outlet_passes_on_what_can_be_written(tmp_path):
    with open(tmp_path / "a.txt", "w") as stream:
        Outlet(stream).write("a line\n")
        assert (tmp_path / "a.txt").read_text() == "a line\n"
    assert Outlet(stream).write("closed\n") == 7
    assert Outlet(None).write("nowhere\n") == 8


UNREAD = f"""
import os, runpy
from training.reporting.showing import Show
{inspect.getsource(closed_pipe)}
Show.end = lambda *args: None
os.dup2(closed_pipe(), 1)
os.dup2(closed_pipe(), 2)
runpy.run_path("train.py", run_name="__main__")
"""


def test_a_run_does_not_depend_on_a_reader_of_what_it_prints(tmp_path, forks):
    done = forks.run(UNREAD, *(f"--{name}={value}" for name, value in FAST.items()), f"--run_dir={tmp_path}/run")
    assert done.returncode == 0
    assert latest(tmp_path / "run").name == "step_000012.pt"
    assert "networks    dcgan" in (tmp_path / "run" / "log.txt").read_text()


class Heard(io.StringIO):
    """What is written, and an event for its first line."""

    def __init__(self):
        super().__init__()
        self.line = threading.Event()

    def write(self, text):
        length = super().write(text)
        if "\n" in text:
            self.line.set()
        return length


def test_what_takes_long_is_said_once_by_the_first_process(monkeypatch):
    monkeypatch.setattr("sys.stderr", stream := Heard())
    monkeypatch.setattr("utils.console.PATIENCE", 0)
    with announced("computing the answer"):
        assert stream.line.wait(60)
    assert stream.getvalue().count("computing the answer ...\n") == 1
    monkeypatch.setattr("utils.console.threading.Timer", None)
    for name, value in zip(VARIABLES, ("1", "2", "127.0.0.1", "1")):
        monkeypatch.setenv(name, value)
    with announced("computing the answer"):
        pass


def test_what_is_soon_done_or_fails_is_not_said(monkeypatch):
    timers, made = [], threading.Timer
    monkeypatch.setattr("utils.console.threading.Timer", lambda *given: timers.append(made(*given)) or timers[-1])
    with announced("computing"):
        pass
    with pytest.raises(ZeroDivisionError), announced("computing"):
        raise ZeroDivisionError
    for timer in timers:
        timer.join(60)  # it has been called off: its thread ends long before its time
        assert timer.interval == PATIENCE and timer.finished.is_set() and not timer.is_alive()
    assert len(timers) == 2
