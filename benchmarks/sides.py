"""The two sides of benchmarks/step_time.py, each in its own process: the project's step and the plain step.

`python benchmarks/sides.py fast|plain|fast_bf16|plain_bf16 [auto]` reads commands from stdin. auto: use as many threads
as a run would.
"""

import contextlib
import functools
import json
import re
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import utils  # noqa: F401, before torch is loaded: it says how threads wait


def make_config(flags):
    """The preset's settings without a moving average, which the plain side lacks."""
    from settings.layers import resolve

    return resolve({"ema_decay": 0.0, **flags})[0]


def make_images(config):
    """The digits, or random images."""
    import torch

    from datasets import Images, load_split

    if config.dataset == "digits":
        return load_split(config)
    torch.manual_seed(0)
    shape = (1000, config.channels, config.image_size, config.image_size)
    return Images(torch.randint(0, 256, shape).to(torch.uint8), torch.zeros(shape[0]).long(), ())


def fast_side(flags, meter):
    """Functions for one step as in train.py, and for 64 samples as in evaluate.py."""
    import torch

    import train
    from datasets import Batches, quantise
    from evaluation.inputs.sampling import Generated
    from models.spectral_norm import Division, SpectralNorm
    from training.state import State
    from utils.precision import keep_memory

    keep_memory()
    config = make_config(flags)
    state = State(config, make_images(config), torch.device("cpu"))
    state.G.train()
    state.D.train()
    for owner, name, part in (
        (SpectralNorm, "iterate", "spectral norm"),
        (SpectralNorm, "forward", "spectral norm"),
        (Division, "backward", "spectral norm"),
        (Batches, "next", "data"),
        (train, "to_float", "data"),
        (state.opt_G, "step", "optimizers"),
        (state.opt_D, "step", "optimizers"),
    ):
        meter.wrap(owner, name, part)

    def step():
        train.step(state, config)
        state.pending.clear()  # as the log does

    @functools.cache
    def folded_G():
        return Generated(state.G, config.z_dim, config.seed, torch.device("cpu")).G

    @torch.inference_mode()
    def sample():
        return quantise(folded_G()(torch.randn(64, config.z_dim)))

    return step, sample


def plain_side(flags, meter):
    import torch
    from plain import PlainRun

    from training.state import State

    config = make_config(flags)
    images = make_images(config)
    run = PlainRun(State(config, images, torch.device("cpu")), images, config)
    return run.step, run.sample


def fast_bf16_side(flags, meter):
    """The fast side under --amp bf16, even if that is not faster on this processor."""
    import utils.precision

    utils.precision.bf16_gain = lambda: 1.1
    return fast_side({**flags, "amp": "bf16"}, meter)


def plain_bf16_side(flags, meter):
    """The plain side with both networks under autocast, in the usual way."""
    import torch

    step, sample = plain_side(flags, meter)

    def half(act):
        @functools.wraps(act)
        def acted():
            with torch.autocast("cpu", torch.bfloat16):
                return act()

        return acted

    return half(step), sample


def choose_threads(flags):
    """Use as many threads as a run with these settings."""
    import torch

    from training.checkpoints.checkpoint import models_of
    from utils.threads import by_work, work

    config = make_config(flags)
    torch.set_num_threads(by_work(work(*models_of(config), config.batch_size)))


class Meter:
    """Seconds spent in the parts of a step, by wrapping their functions."""

    def __init__(self):
        self.seconds, self.wrapped = {}, []

    def unwrap(self):
        for owner, name, function in self.wrapped:
            setattr(owner, name, function)

    def wrap(self, owner, name, part):
        function = getattr(owner, name)
        self.seconds.setdefault(part, 0.0)

        def timed(*args, **kwargs):
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[part] += time.perf_counter() - start

        is_static = isinstance(vars(owner).get(name), staticmethod)
        self.wrapped.append((owner, name, vars(owner).get(name, function)))
        setattr(owner, name, staticmethod(timed) if is_static else timed)


SIDES = {"fast": fast_side, "plain": plain_side, "fast_bf16": fast_bf16_side, "plain_bf16": plain_bf16_side}


def peak_memory():
    """The peak memory in MiB. Linux reports it per program; getrusage() includes the parent's."""
    with contextlib.suppress(OSError):
        if found := re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text()):
            return round(int(found[1]) / 1024)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def worker(side, auto=False):
    """Execute commands from stdin (`case {flags}`, `step N`, `sample N`, `end`); answer each with a line of JSON."""
    from torch.utils.flop_counter import FlopCounterMode

    meter = Meter()
    for line in sys.stdin:
        word, _, rest = line.strip().partition(" ")
        if word == "case":
            meter.unwrap()
            meter = Meter()
            if auto:
                choose_threads(json.loads(rest))
            step, sample = SIDES[side](json.loads(rest), meter)
            answer = True
        elif word == "end":
            with FlopCounterMode(display=False) as counter:
                step()
            answer = {"flops": counter.get_total_flops(), "profile": profile(step)}
        else:
            act, count = {"step": step, "sample": sample}[word], int(rest)
            before = dict(meter.seconds)
            start = time.perf_counter()
            for _ in range(count):
                act()
            answer = {"seconds": (time.perf_counter() - start) / count, "peak_MiB": peak_memory()}
            answer |= {part: (total - before[part]) / count for part, total in meter.seconds.items()}
        print(json.dumps(answer), flush=True)


# Kinds of torch's operations, by their names.
GROUPS = {
    "convolutions": "conv",
    "matrix products": r"aten::(b?mm|addb?mm|addmv_?|mv|dot|addr|baddbmm|linear)$",
    "batch norm": "batch_norm",
    "activations": "relu|threshold|clamp|tanh",
    "resampling": "upsample|avg_pool|col2im|im2col",
    "copies and fills": "copy|fill|zero|cat$|contiguous|clone|pad",
    "Adam": "adam",
}


def profile(step, steps=3):
    """The share of a step's time by kind of operation, from torch.profiler."""
    import torch

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        for _ in range(steps):
            step()
    shares = dict.fromkeys([*GROUPS, "the rest"], 0.0)
    for event in profiler.key_averages():
        name = next((group for group, pattern in GROUPS.items() if re.search(pattern, event.key)), "the rest")
        shares[name] += event.self_cpu_time_total
    total = sum(shares.values())
    return {name: round(share / total, 3) for name, share in shares.items()}


if __name__ == "__main__":
    worker(sys.argv[1], auto=sys.argv[2:] == ["auto"])
