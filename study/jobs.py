"""Calls of main.py, several side by side, each in a process of its own that starts without importing torch again."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from utils.threads import cores

# Imported once, in the process that all others are forked from: together they take seconds.
PRELOADED = [
    *("main", "train", "evaluate", "scipy.stats", "matplotlib.pyplot"),
    *(f"torch_fidelity.metric_{name}" for name in ("isc", "fid", "kid", "prc")),
]
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)  # exit codes of a run that was told to stop, and saved itself


def side_by_side(
    calls: Sequence[tuple[str, Callable[[], list[str] | None], Path]], jobs: int
) -> Generator[tuple[str, int | None], None, None]:
    """Run main.py with each of the arguments, at most `jobs` at once; yields (key, exit code) as they end.

    calls: [(key, function that gives the arguments when it is time, or None to pass over it, path of the file for what
    it prints)]. The exit code is negative after a signal, and None of what was passed over. When the generator is
    closed, or Ctrl-C comes, those that run are told to stop, and save themselves; so they are, too, when this process
    is killed (on Windows they are ended at once, and go on from their last checkpoint).
    """
    methods = multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    context.set_forkserver_preload(PRELOADED)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // max(1, min(jobs, len(calls))))))
    running: dict[Any, tuple[str, BaseProcess]] = {}  # by what says that it has ended
    waiting, fetched = list(reversed(calls)), False

    def start(target: Callable[[list[str]], None], key: str, arguments: list[str], console: Path) -> None:
        process = context.Process(target=_as_script, args=(target, arguments, str(console)))
        process.start()
        running[process.sentinel] = key, process

    def ended() -> Iterator[tuple[str, int | None]]:
        for sentinel in wait(list(running)):
            key, process = running.pop(sentinel)
            process.join()
            yield key, process.exitcode

    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                key, give, console = waiting.pop()
                arguments = give()
                if arguments is None:
                    yield key, None
                    continue
                if not fetched:  # by itself: runs that begin together would each download the data
                    start(_fetch, key, arguments, console)
                    list(ended())
                    fetched = True
                start(_run, key, arguments, console)
            if running:
                yield from ended()
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join()


def _as_script(target: Callable[[list[str]], None], arguments: list[str], console: str) -> None:
    """In a new process: call target(arguments) as a script is called, printing to a file."""
    threading.Thread(target=_stop_without, args=(multiprocessing.parent_process(),), daemon=True).start()
    with open(console, "a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    from utils.errors import run_as_script

    run_as_script(lambda: target(arguments))


def _run(arguments: list[str]) -> None:
    """Be `python main.py ARGUMENTS`."""
    import main

    sys.argv = ["main.py", *arguments]
    main.main()


def _fetch(arguments: list[str]) -> None:
    """Have the data set, the extractor and the real images' features at hand, as the runs will want them."""
    from datasets.sources import load_split
    from evaluation.evaluator import Evaluator
    from evaluation.scores.metrics import PROTOCOLS
    from settings.command_line import parse_args
    from training.checkpoints.resume import prepare
    from utils.distributed import select_device

    config = prepare(parse_args("", arguments)[0])
    evaluator = Evaluator(config, load_split(config), select_device(config.device))
    for name in config.protocol:
        evaluator.reference(PROTOCOLS[name].split)


def _stop_without(parent: Any) -> None:
    """Stop this process, as by a signal, when the one that started it is gone: nobody would wait for it."""
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
