"""The time of a training step on an idle machine, next to a busy loop, and next to a second training.

It compares numbers of threads and ways of waiting. Each is a process of its own, and all take turns under one load, so
ratios compare times of the same run. "auto" is the project's choice: `--threads` by the networks' work, and threads
that sleep while they wait. Prints a table. --cases and --turns limit the time.
"""

import argparse
import contextlib
import json
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from step_time import ROOT, Process

CASES = {  # name -> (flags, steps in a turn)
    "digits_dcgan": ({"dataset": "digits", "model": "dcgan"}, 15),
    "digits_resnet": ({"dataset": "digits", "model": "resnet"}, 15),
    "digits_mlp": ({"dataset": "digits", "model": "mlp"}, 30),
    "mnist_dcgan, base_channels 16": ({"dataset": "mnist", "model": "dcgan", "base_channels": 16}, 4),
    "cifar10_dcgan": ({"dataset": "cifar10", "model": "dcgan"}, 1),
}
SETTINGS = {  # environment variables set before torch is loaded; under auto the project sets its own
    "auto": {},
    "1 thread": {"OMP_NUM_THREADS": "1"},
    "all, spinning": {"OMP_WAIT_POLICY": "ACTIVE"},
    "all, libgomp's default": {"GOMP_SPINCOUNT": "300000"},
    "all, spinning shortly": {"GOMP_SPINCOUNT": "1000"},
    "all, sleeping": {"OMP_WAIT_POLICY": "PASSIVE"},
}
BUSY_LOOP = [sys.executable, "-c", "while True: pass"]


@contextlib.contextmanager
def load(name, flags):
    """Put the named load on the machine within it."""
    if name == "quiet":
        yield
        return
    command = [sys.executable, str(ROOT / "benchmarks" / "sides.py"), "fast", "auto"]
    command = BUSY_LOOP if name == "a busy loop" else command
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        if name == "a second training":
            other.stdin.write(f"case {json.dumps(flags)}\nstep {10**9}\n".encode())
            other.stdin.flush()
            time.sleep(5)  # in which it starts
        yield
    finally:
        other.kill()
        other.wait()


def measure(flags, steps, turns):
    """Measure one case: {load: {setting: median milliseconds per step}}."""
    workers = {name: Process("fast", variables, auto=name == "auto") for name, variables in SETTINGS.items()}
    for worker in workers.values():
        worker.ask("case", json.dumps(flags))
        worker.ask("step", 2)
        worker.process.send_signal(signal.SIGSTOP)
    found = {}
    for name in ("quiet", "a busy loop", "a second training"):
        times = {setting: [] for setting in workers}
        with load(name, flags):
            for _ in range(turns):
                for setting, worker in workers.items():
                    worker.process.send_signal(signal.SIGCONT)
                    times[setting].append(1000 * worker.ask("step", steps)["seconds"])
                    worker.process.send_signal(signal.SIGSTOP)  # else its threads go on spinning beside the next one
        found[name] = {setting: statistics.median(values) for setting, values in times.items()}
    for worker in workers.values():
        worker.process.send_signal(signal.SIGCONT)
        worker.close()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    print(f"| ms a step (ratio to the fastest) | beside | {' | '.join(SETTINGS)} |\n|{'---|' * (2 + len(SETTINGS))}")
    for case in arguments.cases:
        flags, steps = CASES[case]
        for beside, times in measure(flags, steps, arguments.turns).items():
            best = min(times.values())
            cells = (f"{value:.3g} ({value / best:.2f})" for value in times.values())
            print(f"| {case} | {beside} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
