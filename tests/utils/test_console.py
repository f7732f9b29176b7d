"""What stands in a terminal's place: pipes that nobody reads, full disks, nothing at all."""

import contextlib
import inspect
import os

import pytest
from helpers import FAST

from training.run_dir import latest
from utils.console import Outlet


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


UNREAD = f"""
import contextlib, os, runpy
from training import monitor
{inspect.getsource(filled_pipe)}
{inspect.getsource(closed_pipe)}
monitor.finish_pictures = lambda run: None
pipes = filled_pipe(), closed_pipe()
os.dup2(pipes[0][1], 1)
os.dup2(pipes[1][1], 2)
runpy.run_path("train.py", run_name="__main__")
"""


def test_a_run_does_not_depend_on_a_reader_of_what_it_prints(tmp_path, forks):
    done = forks.run(UNREAD, *(f"--{name}={value}" for name, value in FAST.items()), f"--run_dir={tmp_path}/run")
    assert done.returncode == 0
    assert latest(tmp_path / "run").name == "step_000012.pt"
    assert "networks    dcgan" in (tmp_path / "run" / "log.txt").read_text()
