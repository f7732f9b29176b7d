"""Processes side by side: their exit codes, what they print, and that all end when they are told to."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from study.jobs import Processes, _reason

# Says that it runs, and ends when it is told to, as a run does that saves itself.
OBEDIENT = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("saved") or 143))
open(sys.argv[1], "w").close()  # a pipe: it waits for its reader
while True:
    signal.pause()
"""


@pytest.fixture
def pipe(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


@pytest.mark.parametrize(("source", "code"), [("", 0), ("raise SystemExit(3)", 3), ("import os; os.kill(0, 9)", -9)])
def test_a_process_ends_with_its_exit_code_and_signals_reach_it_alone(tmp_path, source, code):
    assert Processes(1).run(["-c", source], tmp_path / "console") == code  # signal 9 goes to its whole group


def test_a_process_finds_the_project_and_prints_behind_what_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "console").write_text("before\n", encoding="utf-8")
    source = "import os, sys, study; print(os.environ['OMP_NUM_THREADS']); print('error', file=sys.stderr)"
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert Processes(10_000).run(["-c", source], tmp_path / "console") == 0
    assert sorted((tmp_path / "console").read_text(encoding="utf-8").split()) == ["1", "before", "error"]


def test_what_runs_ends_when_all_are_stopped_and_nothing_more_begins(tmp_path, pipe):
    processes, console = Processes(1), tmp_path / "console"
    with ThreadPoolExecutor() as pool:
        running = pool.submit(processes.run, ["-c", OBEDIENT, str(pipe)], console)
        open(pipe).close()
        processes.stop()
        assert running.result() is None and processes.run(["-c", "print('late')"], console) is None
    assert console.read_text(encoding="utf-8") == "saved\n" and processes.begun[0].returncode == 143


def test_the_reason_of_a_failure_is_the_last_line_of_this_start_or_the_signal(tmp_path):
    console = tmp_path / "console"
    console.write_bytes(b"error: of before\n")
    assert _reason(console, 17, 2) == "exit code 2"
    console.write_bytes(b"error: of before\nready\rerror: no such file\n\n")
    assert _reason(console, 17, 2) == "error: no such file"
    assert _reason(console, 17, -9) == "killed by signal 9 (is there enough memory?)"
    assert _reason(console, 17, -15) == "killed by signal 15"
