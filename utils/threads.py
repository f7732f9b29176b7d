"""The number of threads that compute a step on a CPU.

How idle threads wait is set before torch is loaded, in utils/__init__.py.
"""

import contextlib
import copy
import itertools
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .distributed import world_size
from .launcher import launched, number

# Multiply-adds of G and D, forward, for each thread. With fewer, two threads are at most 1.5 times as fast as one on a
# quiet machine, and one is 1.5 to 2.4 times as fast as two next to another program (benchmarks/busy.py).
WORK_PER_THREAD = 5e8


def cores() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share() -> int:
    """Return how many threads this process may have: OMP_NUM_THREADS or its part of this machine's cores.

    torchrun sets OMP_NUM_THREADS=1 by default, so a value of 1 under torchrun does not count as the user's choice.
    """
    given, beside = number("OMP_NUM_THREADS", 0), number("LOCAL_WORLD_SIZE", 1) if launched() else 1
    return given if given > (1 if beside > 1 else 0) else max(1, cores() // beside)


@torch.no_grad()
def work(G: nn.Module, D: nn.Module, batch_size: int) -> int:
    """Return the multiply-adds of a batch's forward through the linear and convolutional layers of G and D.

    torch.utils.flop_counter counts them as well, but it takes more than a second to load.
    """
    found = 0

    def count(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal found
        positions = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output[:, :1]
        found += positions[0, 0].numel() * module.weight.numel()

    copies: Any = [copy.deepcopy(network).eval() for network in (G, D)]  # the originals keep their hooks and modes
    for module in itertools.chain(*(network.modules() for network in copies)):
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            module.register_forward_hook(count)
    G, D = copies
    z = next(G.parameters()).new_zeros(1, copies[0].z_dim)
    labels = [z.new_zeros(1, dtype=torch.int64)] if getattr(G, "num_classes", 0) else []
    D(G(z, *labels), *labels)
    return found * batch_size


def by_work(multiply_adds: float) -> int:
    """Return the threads for a step of this work(). The machine's load does not count, so that runs can be repeated."""
    return min(share(), max(1, int(multiply_adds / WORK_PER_THREAD)))


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute on `count` threads within the context."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def all_cores() -> Iterator[None]:
    """Compute with the threads of a single process within the context, also in a run and under torchrun.

    The last bits of a sum depend on the number of threads, but scores must not.
    """
    count = share() if world_size() == 1 else cores()
    if torch.get_num_threads() == count:
        yield
        return
    from threadpoolctl import threadpool_limits

    with threads(count), threadpool_limits(count, user_api="blas"):
        yield
