"""Run a study's runs as parallel processes of main.py; a thread starts each and waits for its end."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from settings.command_line import as_flags
from utils.console import progress
from utils.errors import Stopped, UserError
from utils.files import make_folder
from utils.signals import handled
from utils.threads import cores

from .grid import Run, Study
from .runs import DONE, begin, failure_path, outcome

ROOT = Path(__file__).resolve().parent.parent
MAIN, FETCH = [str(ROOT / "main.py")], ["-c", "from study.jobs import fetch; fetch()"]
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)  # exit codes of a run that was stopped and saved itself


class Processes:
    """Python processes that threads wait for, each with its share of the cores. stop() ends them all."""

    def __init__(self, count: int) -> None:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        share = str(max(1, cores() // count))
        self.environment = {"OMP_NUM_THREADS": share, **os.environ, "PYTHONPATH": path}
        self.begun: list[subprocess.Popen[bytes]] = []
        self.lock = threading.Lock()  # so that stop() sees all processes that have begun
        self.stopped = False

    def run(self, words: Sequence[str], console: Path) -> int | None:
        """Run `python WORDS` to its end, and append its output to a file.

        Returns its exit code, which is negative after a signal, or None after stop().
        """
        # In its own process group, which Ctrl-C in a terminal does not reach: it gets only the signal from stop().
        options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "env": self.environment, "process_group": 0}
        with self.lock, open(console, "ab") as file:
            if self.stopped:
                return None
            process = subprocess.Popen([sys.executable, *words], stdout=file, stderr=file, **options)
            self.begun.append(process)
        code = process.wait()
        return None if self.stopped else code

    def stop(self) -> None:
        """Start no more processes; make running ones save and end (on Windows, end at once)."""
        with self.lock:
            self.stopped = True
        for process in self.begun:
            process.terminate()  # has no effect on one that has ended


def run_all(study: Study, runs: Sequence[Run], jobs: int, done: int = 0) -> None:
    """Run all runs to their ends, `jobs` at a time, and record why any failed. done: runs finished earlier.

    If this process is killed, running ones continue to their ends by themselves. Raises Stopped on SIGINT and SIGTERM,
    after the running ones have saved.
    """
    console, processes = study.folder / "console", Processes(min(jobs, len(runs)))
    make_folder(console)
    with (
        handled(dict.fromkeys((signal.SIGINT, signal.SIGTERM), interrupt)),  # even if a shell made it ignore SIGINT
        progress(total=done + len(runs), initial=done, label=study.name, unit="run", delay=0) as bar,
        ThreadPoolExecutor(jobs) as pool,
    ):
        try:
            if jobs > 1 and len(runs) > 1:
                pool.submit(processes.run, [*FETCH, *as_flags(runs[0].flags)], console / "fetch.txt").result()
            for future in as_completed([pool.submit(run_one, run, processes, console, bar.write) for run in runs]):
                future.result()
                bar.update()
        finally:
            processes.stop()
            pool.shutdown(cancel_futures=True)


def run_one(run: Run, processes: Processes, console: Path, say: Callable[[str], object]) -> None:
    """Start or continue a run, to its end. If it fails, print the reason and write it to a file."""
    try:
        words = begin(run)
    except UserError as error:
        say(f"{run.name} is skipped: {error}")
        return
    path = console / f"{run.name}.txt"
    printed = path.stat().st_size if path.exists() else 0  # by earlier starts
    code = processes.run([*MAIN, *words], path)
    found = outcome(run)
    if found.state == "diverged":
        say(f"{run.name} diverged: {found.message}")
    elif code and code not in STOPPED and found.state not in DONE:
        message = _reason(path, printed, code)
        say(f"{run.name} failed: {message}")
        with contextlib.suppress(OSError):  # a full disk must not stop the other runs
            failure_path(run).write_text(message + "\n", encoding="utf-8")


def fetch() -> None:
    """Run as `python -c FETCH FLAGS`: download and compute what parallel runs would otherwise each do."""
    from datasets import load_split
    from evaluation.evaluator import Evaluator
    from evaluation.protocol import PROTOCOLS
    from settings.command_line import parse_args
    from settings.layers import resolve
    from utils.distributed import select_device

    config, _ = resolve(parse_args(None)[0])
    evaluator = Evaluator(config, load_split(config), select_device(config.device))
    for name in config.protocol:
        evaluator.reference(PROTOCOLS[name].split)


def _reason(console: Path, start: int, code: int) -> str:
    """Why a run ended with this exit code: its signal, or the last line that it printed after byte `start`."""
    if code < 0:
        return f"killed by signal {-code}" + (" (is there enough memory?)" if code == -9 else "")
    lines = console.read_bytes()[start:].decode("utf-8", errors="replace").splitlines()
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), f"exit code {code}")


def interrupt(number: int, frame: Any) -> None:
    """Handle a signal. Raises Stopped, on which run_all() stops its runs."""
    raise Stopped("stopped; the running runs have been saved. Type the same command again to continue", number)
