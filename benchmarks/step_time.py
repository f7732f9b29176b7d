"""The time of a training step, compared with the plain implementation (benchmarks/plain.py) in one run.

Each side is a process of its own, and the two take turns, so that other load on the machine affects both equally.
Prints JSON. --quick: only the ratios, in a minute. --half: also the ratios of --amp bf16 to the plain side in both
precisions. --write: also make the tables and the picture of docs/performance.md.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from sides import SIDES, make_config  # noqa: E402

PAIR = ("fast", "plain")

# name -> (flags, steps in a turn, turns). The ResNet has half the paper's batches, and one update of D for one of G.
CASES = {
    "cifar10_resnet": (
        {"dataset": "cifar10", "model": "resnet", "batch_size": 32, "batch_size_G": 64, "n_dis": 1},
        1,
        7,
    ),
    "cifar10_dcgan": ({"dataset": "cifar10", "model": "dcgan"}, 1, 15),
    "mnist_dcgan_small": ({"dataset": "mnist", "model": "dcgan", "size": "small"}, 5, 15),
    "digits_dcgan": ({"dataset": "digits", "model": "dcgan"}, 20, 15),
    "digits_resnet": ({"dataset": "digits", "model": "resnet"}, 20, 15),
    "digits_mlp": ({"dataset": "digits", "model": "mlp"}, 40, 15),
}
QUICK_TURNS = {"cifar10_resnet": 3, "cifar10_dcgan": 5}
REST = 0.1  # seconds between short turns, in which the other side's threads stop spinning

# The cost of one step of a small ResNet as one setting grows.
CENTRE = {
    "dataset": "cifar10",
    "model": "resnet",
    "base_channels": 32,
    "image_size": 32,
    "batch_size": 32,
    "batch_size_G": 32,
    "n_dis": 1,
}
GROWTH = {
    "batch size": [{"batch_size": n, "batch_size_G": n} for n in (8, 16, 32, 64, 128)],
    "width (base_channels)": [{"base_channels": n} for n in (16, 32, 64, 128)],
    "image size": [{"image_size": n, "base_channels": 16} for n in (8, 16, 32, 48, 64)],
    "n_dis": [{"n_dis": n} for n in (1, 2, 3, 5)],
}
LONG_RUN = (100, 10_000)  # steps of a run, between which neither time nor memory may grow


# ---- Around them ---------------------------------------------------------------------------------------------------


class Process:
    """A worker process that executes commands."""

    def __init__(self, side, variables=None, auto=False):
        """variables: replace OpenMP's in its environment. auto: it chooses its number of threads itself."""
        command = [sys.executable, str(ROOT / "benchmarks" / "sides.py"), side, *["auto"] * auto]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
        environment = None if variables is None else kept | variables
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=environment, **pipes)

    def send(self, *words):
        print(*words, file=self.process.stdin, flush=True)

    def receive(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a process of the benchmark ended; its message is above")
        return json.loads(line)

    def ask(self, *words):
        self.send(*words)
        return self.receive()

    def close(self):
        self.process.stdin.close()
        self.process.wait()


@contextlib.contextmanager
def processes(sides=PAIR, auto=False):
    both = {side: Process(side, auto=auto) for side in sides}
    try:
        yield both
    finally:
        for process in both.values():
            process.close()


def compare(both, flags, steps, turns, act="step"):
    """Let both sides take turns. Returns the measurements of each turn, {side: [{"seconds": ...}, ...]}."""
    if act == "step":
        for process in both.values():
            process.send("case", json.dumps(flags))
        for process in both.values():
            process.receive()
    found = {side: [] for side in both}
    for turn in range(turns + 1):
        for side, process in both.items():
            measured = process.ask(act, steps)
            if turn:  # the first one warms up
                found[side].append(measured)
            time.sleep(REST if steps > 1 else 0)
    return found


def median(measurements, key="seconds"):
    return statistics.median(measured[key] for measured in measurements)


def ratio(found, side="fast", to="plain"):
    """The median over turns of one side's time divided by another's."""
    return round(statistics.median(a["seconds"] / b["seconds"] for a, b in zip(found[side], found[to])), 3)


def quick(cases):
    """Measure the ratios of all cases with one pair of processes."""
    with processes() as both:
        ratios = {name: ratio(compare(both, CASES[name][0], *quick_turns(name))) for name in cases}
    print(json.dumps(ratios, indent=2))


def half(cases):
    """Measure the ratios of all cases in float32 and in bf16 with four processes."""
    pairs = [("fast", "plain"), ("fast_bf16", "plain"), ("fast_bf16", "plain_bf16"), ("fast_bf16", "fast")]
    with processes(SIDES, auto=True) as every:  # as many threads as a run takes
        for name in cases:
            found = compare(every, CASES[name][0], *quick_turns(name))
            print(json.dumps({"case": name} | {f"{one} / {other}": ratio(found, one, other) for one, other in pairs}))


def quick_turns(name):
    """Returns (steps in a turn, turns)."""
    return min(CASES[name][1], 10), QUICK_TURNS.get(name, 5)


def machine():
    """The machine's speed: GFLOP/s of the fastest square float32 product tried, GB/s of copying 256 MiB."""
    import torch

    best = {"matmul_GFLOPS": 0.0, "copy_GB_per_s": 0.0}
    for n in (1024, 2048, 4096):
        a, b = torch.randn(2, n, n)
        for _ in range(4):
            start = time.perf_counter()
            a @ b
            best["matmul_GFLOPS"] = max(best["matmul_GFLOPS"], 2 * n**3 / (time.perf_counter() - start) / 1e9)
    source, target = torch.ones(2, 2**26)
    for _ in range(5):
        start = time.perf_counter()
        target.copy_(source)
        best["copy_GB_per_s"] = max(best["copy_GB_per_s"], 2 * 4 * 2**26 / (time.perf_counter() - start) / 1e9)
    return {name: round(value, 1) for name, value in best.items()} | {"threads": torch.get_num_threads()}


def measure(name, peak):
    """Measure all figures of one case with fresh processes."""
    flags, steps, turns = CASES[name]
    config = make_config(flags)
    images = config.n_dis * config.batch_size + (config.batch_size_G or config.batch_size)
    with processes() as both:
        found = compare(both, flags, steps, turns)
        peaks = {side: found[side][-1]["peak_MiB"] for side in both}
        samples = compare(both, flags, steps, 5, act="sample")
        end = {side: process.ask("end") for side, process in both.items()}
    flops = end["plain"]["flops"]  # of the mathematics as it is usually written: the fast side makes fewer products
    case = {"ratio": ratio(found), "GFLOP": round(flops / 1e9, 1)}
    for side in PAIR:
        seconds = median(found[side])
        case[side] = {
            "seconds": round(seconds, 4),
            "images_per_second": round(images / seconds, 1),
            "share_of_matmul_peak": round(flops / 1e9 / seconds / peak, 2),
            "peak_MiB": peaks[side],
        }
    for part in ("spectral norm", "data", "optimizers"):
        case["fast"][part] = round(median(found["fast"], part) / median(found["fast"]), 4)
    case["fast"]["profile"] = end["fast"]["profile"]
    case["sampling"] = {"ratio": ratio(samples)}
    case["sampling"] |= {f"{side}_images_per_second": round(64 / median(samples[side]), 1) for side in PAIR}
    return case


def alone(flags, steps):
    """Seconds and peak memory of a step of the fast side with no other side running, after two warm-up steps."""
    process = Process("fast")
    process.ask("case", json.dumps(flags))
    process.ask("step", 2)
    found = [process.ask("step", 1) for _ in range(steps)]
    process.close()
    return {"seconds": round(median(found), 4), "peak_MiB": found[-1]["peak_MiB"]}


def growth():
    """{setting: [(value, measurement), ...]} of CENTRE with one setting changed."""
    return {
        name: [(next(iter(changed.values())), alone({**CENTRE, **changed}, 7)) for changed in changes]
        for name, changes in GROWTH.items()
    }


def long_run():
    """Compare a digits run after many steps with one after few, by turns. Returns {steps: measurement}."""
    early, late = LONG_RUN
    processes = {late: Process("fast"), early: Process("fast")}
    found = {}
    for steps, process in processes.items():
        process.ask("case", json.dumps(CASES["digits_dcgan"][0]))
        process.ask("step", steps)
        found[steps] = []
    for _ in range(20):
        for steps, process in processes.items():
            found[steps].append(process.ask("step", 20))
            time.sleep(REST)
    for process in processes.values():
        process.close()
    return {
        steps: {"seconds": round(median(found[steps]), 5), "peak_MiB": found[steps][-1]["peak_MiB"]}
        for steps in LONG_RUN
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--quick", action="store_true", help="the ratios alone, in a minute")
    parser.add_argument("--half", action="store_true", help="the ratios in float32 and in bf16, in three minutes")
    parser.add_argument("--write", action="store_true", help="all figures of docs/performance.md, in some 15 minutes")
    arguments = parser.parse_args()
    if arguments.quick:
        return quick(arguments.cases)
    if arguments.half:
        return half(arguments.cases)
    report = {"machine": machine()}
    peak = report["machine"]["matmul_GFLOPS"]
    report["cases"] = {name: measure(name, peak) for name in (CASES if arguments.write else arguments.cases)}
    if arguments.write:
        from page import write_page

        report |= {"growth": growth(), "long_run": long_run()}
        write_page(report)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
