"""The time of a training step beside the plain implementation's (benchmarks/plain.py), in one run.

Each side is a process of its own, and the two take turns, so that what else the machine does meets both alike. Prints
JSON, and draws and tabulates docs/performance.md's figures with --report. --quick: the ratios alone, in a minute.
"""

import argparse
import contextlib
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# name -> (flags, steps in a turn, turns). The ResNet's batches are a quarter of the paper's 128 for G, half its 64 for D.
CASES = {
    "cifar10_resnet": ({"dataset": "cifar10", "model": "resnet", "batch_size": 32, "batch_size_G": 64, "n_dis": 1}, 1, 5),
    "cifar10_dcgan": ({"dataset": "cifar10", "model": "dcgan"}, 1, 9),
    "digits_dcgan": ({"dataset": "digits", "model": "dcgan"}, 20, 15),
    "digits_resnet": ({"dataset": "digits", "model": "resnet"}, 20, 15),
    "digits_mlp": ({"dataset": "digits", "model": "mlp"}, 20, 15),
}
QUICK_TURNS = {"cifar10_resnet": 2, "cifar10_dcgan": 3}
REST = 0.25  # seconds between turns, in which the other side's threads stop spinning


# ---- In the processes ----------------------------------------------------------------------------------------------


def make_config(flags):
    """The preset's settings without a moving average, which the plain side has not."""
    from utils.config import resolve

    return resolve({"ema_decay": 0.0, **flags})[0]


def make_images(config):
    """The digits, or as many random images as an epoch of this benchmark needs."""
    import torch

    from utils import data

    if config.dataset == "digits":
        return data.load_split(config)
    torch.manual_seed(0)
    shape = (max(1000, config.batch_size), config.channels, config.image_size, config.image_size)
    return data.Images(torch.randint(0, 256, shape).to(torch.uint8), torch.zeros(shape[0]).long(), ())


def fast_side(flags, meter):
    """A function that makes one step as train.py does."""
    import torch

    import train
    from models.spectral_norm import Division, SpectralNorm
    from utils import data
    from utils.precision import keep_memory
    from utils.run import State

    keep_memory()
    config = make_config(flags)
    state = State(config, make_images(config), torch.device("cpu"))
    state.G.train()
    state.D.train()
    for owner, name, part in (
        (SpectralNorm, "iterate", "spectral_norm"),
        (SpectralNorm, "forward", "spectral_norm"),
        (Division, "backward", "spectral_norm"),
        (data.Batches, "next", "data"),
        (data, "to_float", "data"),
        (state.opt_G, "step", "optimizers"),
        (state.opt_D, "step", "optimizers"),
    ):
        meter.wrap(owner, name, part)

    def step():
        train.step(state, config)
        state.pending.clear()  # as the log does

    return step


def plain_side(flags, meter):
    import torch
    from plain import PlainRun

    from utils.run import State

    config = make_config(flags)
    images = make_images(config)
    return PlainRun(State(config, images, torch.device("cpu")), images, config).step


class Meter:
    """Seconds spent in the parts of a step, by wrapping their functions."""

    def __init__(self):
        self.seconds = {}

    def wrap(self, owner, name, part):
        function = getattr(owner, name)
        self.seconds.setdefault(part, 0.0)

        def timed(*args, **kwargs):
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[part] += time.perf_counter() - start

        setattr(owner, name, staticmethod(timed) if isinstance(owner.__dict__.get(name), staticmethod) else timed)


SIDES = {"fast": fast_side, "plain": plain_side}


def worker(side):
    """Obey the lines of stdin: `case {flags}`, `step N`, `flops`. Each is answered by one line of JSON."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    step, meter = None, None
    for line in sys.stdin:
        word, _, rest = line.partition(" ")
        if word == "case":
            meter = Meter()
            step = SIDES[side](json.loads(rest), meter)
            answer = True
        elif word == "step":
            before = dict(meter.seconds)
            start = time.perf_counter()
            for _ in range(int(rest)):
                step()
            answer = {"seconds": (time.perf_counter() - start) / int(rest)}
            answer |= {part: (total - before[part]) / int(rest) for part, total in meter.seconds.items()}
        else:
            with FlopCounterMode(display=False) as counter:
                step()
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            answer = {"flops": counter.get_total_flops(), "peak_MiB": peak, "threads": torch.get_num_threads()}
        print(json.dumps(answer), flush=True)


# ---- Around them ---------------------------------------------------------------------------------------------------


class Process:
    """A worker that takes orders."""

    def __init__(self, side):
        command = [sys.executable, __file__, "--worker", side]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

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
def processes():
    both = {side: Process(side) for side in SIDES}
    try:
        yield both
    finally:
        for process in both.values():
            process.close()


def compare(both, flags, steps, turns):
    """Let both sides take turns. Returns their turns' measurements, {side: [{"seconds": ...}, ...]}."""
    for process in both.values():
        process.send("case", json.dumps(flags))
    for process in both.values():
        process.receive()
    found = {side: [] for side in both}
    for turn in range(turns + 1):
        for side, process in both.items():
            measured = process.ask("step", steps)
            if turn:  # the first one warms up
                found[side].append(measured)
            time.sleep(REST if steps > 1 else 0)
    return found


def median(measurements, key="seconds"):
    return statistics.median(measured[key] for measured in measurements)


def ratio(found):
    """The median over the turns of the fast side's time to the plain side's."""
    pairs = zip(found["fast"], found["plain"])
    return statistics.median(fast["seconds"] / plain["seconds"] for fast, plain in pairs)


def quick():
    """The ratios of all cases, from one pair of processes."""
    with processes() as both:
        ratios = {
            name: round(ratio(compare(both, flags, min(steps, 10), QUICK_TURNS.get(name, 5))), 3)
            for name, (flags, steps, _) in CASES.items()
        }
    print(json.dumps(ratios, indent=2))


def matmul_peak():
    """GFLOP/s of the fastest square float32 product tried: what the machine can do."""
    import torch

    best = 0.0
    for n in (1024, 2048, 4096):
        a, b = torch.randn(2, n, n)
        for _ in range(4):
            start = time.perf_counter()
            a @ b
            best = max(best, 2 * n**3 / (time.perf_counter() - start) / 1e9)
    return best


def full(names):
    """Every figure of each case, from fresh processes."""
    peak = matmul_peak()
    report = {"matmul_peak_GFLOPS": round(peak), "cases": {}}
    for name in names:
        flags, steps, turns = CASES[name]
        with processes() as both:
            found = compare(both, flags, steps, turns)
            end = {side: process.ask("end") for side, process in both.items()}
        case = {"ratio": round(ratio(found), 3)}
        config = make_config(flags)
        images = config.n_dis * config.batch_size + (config.batch_size_G or config.batch_size)
        for side in SIDES:
            seconds, flops = median(found[side]), end[side]["flops"]
            case[side] = {
                "seconds_per_step": round(seconds, 4),
                "images_per_second": round(images / seconds, 1),
                "GFLOP_per_step": round(flops / 1e9, 1),
                "share_of_matmul_peak": round(flops / 1e9 / seconds / peak, 2),
                "peak_MiB": round(end[side]["peak_MiB"]),
            }
        for part in ("spectral_norm", "data", "optimizers"):
            case["fast"][f"share_of_{part}"] = round(median(found["fast"], part) / median(found["fast"]), 4)
        report["cases"][name] = case
        print(name, json.dumps(case), file=sys.stderr)
    report["threads"] = end["fast"]["threads"]
    print(json.dumps(report, indent=2))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--quick", action="store_true", help="the ratios alone, in a minute")
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker)
    elif arguments.quick:
        quick()
    else:
        full(arguments.cases)


if __name__ == "__main__":
    main()
