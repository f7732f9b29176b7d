"""What is left over in the environment from another launch, and what a launch without its others says."""

import signal
import socket
import sys

import pytest
import torch

from utils.distributed import processes, select_device
from utils.errors import UserError
from utils.launcher import VARIABLES, launched, own_rank


@pytest.fixture
def environment(monkeypatch):
    """Sets these variables of a launch, and none of the others."""

    def set_to(**variables):
        for name in (*VARIABLES, "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_to


@pytest.mark.parametrize("left", [{"RANK": "1"}, {"RANK": "3", "WORLD_SIZE": "1"}, {"LOCAL_RANK": "7"}, {"RANK": "x"}])
def test_a_rank_without_a_world_is_passed_over(environment, left):
    environment(**left)
    assert not launched() and own_rank() == 0
    with processes():
        assert not torch.distributed.is_initialized()
    assert select_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("left", "words"),
    [
        ({"WORLD_SIZE": "2"}, r"2 processes cannot meet at None:None \(.* RANK expected, but not set"),
        ({"WORLD_SIZE": "4", "RANK": "1"}, r"4 processes cannot meet .* MASTER_ADDR expected, but not set"),
        (
            {"WORLD_SIZE": "2", "RANK": "x", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"},
            r"2 processes cannot meet at 127.0.0.1:1 \(invalid literal .*'x'\)",
        ),
        (
            {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "a"},
            "cannot meet at 127.0.0.1:a",
        ),
    ],
)
def test_processes_that_cannot_meet_are_refused_with_what_to_do(environment, left, words):
    environment(**left)
    with pytest.raises(UserError, match=f"{words}.*torchrun or, for a single process, unset WORLD_SIZE and RANK"):
        processes().__enter__()


WAITS = """
import os, signal, sys
from utils import console, distributed
os.environ |= {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": sys.argv[1]}
console.PATIENCE = 0.01
plain = sys.stderr.write
def write(text):  # once it is said what is waited for, Ctrl-C
    plain(text)
    if "waiting at" in text:
        os.kill(os.getpid(), signal.SIGINT)
sys.stderr.write = write
distributed.processes().__enter__()
"""


def test_a_process_that_waits_for_others_says_so_and_can_be_interrupted(run_script):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    done = run_script(sys.executable, "-c", WAITS, port)
    assert done.returncode == -signal.SIGINT
    assert f"waiting at 127.0.0.1:{port} for all 2 processes" in done.stderr


def test_an_error_is_printed_whatever_rank_is_left_over(environment, call):
    environment(RANK="5")
    done = call("train.py", "--no_such_flag")
    assert done.returncode == 2 and done.stderr.startswith("error: unrecognized arguments")
