"""Calls of main.py, several side by side, each in a process of its own that starts without importing torch again."""

import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing.connection import wait

# Imported once, in the process that all others are forked from: together they take seconds.
PRELOADED = (
    *("main", "train", "evaluate", "torch._dynamo", "sklearn.datasets", "scipy.stats", "matplotlib.pyplot"),
    *(
        "torch_fidelity.metric_isc",
        "torch_fidelity.metric_fid",
        "torch_fidelity.metric_kid",
        "torch_fidelity.metric_prc",
    ),
)
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)  # exit codes of a run that was told to stop, and saved itself


def side_by_side(calls, jobs):
    """Run main.py with each of the arguments, at most `jobs` at once; yields (key, exit code) as they end.

    calls: [(key, arguments, path of the file for what it prints)]. The exit code is negative after a signal. When the
    generator is closed, or Ctrl-C comes, those that run are told to stop, and save themselves; so they are, too, when
    this process is killed.
    """
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    context.set_forkserver_preload([*PRELOADED])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // jobs)))
    waiting, running = list(reversed(calls)), {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                key, arguments, console = waiting.pop()
                process = context.Process(target=_call, args=(arguments, str(console)))
                process.start()
                running[process.sentinel] = key, process
            for sentinel in wait(list(running)):
                key, process = running.pop(sentinel)
                process.join()
                yield key, process.exitcode
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join()


def cores():
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _call(arguments, console):
    """In a new process: be `python main.py ARGUMENTS`, printing to a file."""
    threading.Thread(target=_stop_without, args=(multiprocessing.parent_process(),), daemon=True).start()
    with open(console, "a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    import main
    from utils.errors import run_as_script

    sys.argv = ["main.py", *arguments]
    run_as_script(main.main)


def _stop_without(parent):
    """Stop this process, as by a signal, when the one that started it is gone: nobody would wait for it."""
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
