"""Half precision, TF32, deterministic algorithms, and the memory that a CPU process keeps."""

import contextlib
import ctypes
import functools
import os
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import refuse_if

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


@functools.cache
def bf16_gain() -> float:
    """Return how many times as fast this CPU convolves, forward and backward, in bfloat16 as in float32.

    It is timed, within 0.1 s, since a processor's flags are not reliable. Without the instructions bfloat16 is emulated
    and slower, and so it was on a virtual Intel machine whose flags listed them.
    """
    seconds = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    for _ in range(4):
        for dtype in seconds:
            x = torch.ones(8, 64, 16, 16, dtype=dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
            W = torch.ones(64, 64, 3, 3, dtype=dtype).requires_grad_()
            start = time.perf_counter()
            F.conv2d(x, W, padding=1).sum().backward()
            seconds[dtype] = min(seconds[dtype], time.perf_counter() - start)
    return seconds[torch.float32] / seconds[torch.bfloat16]


def settled(amp: str, device: torch.device) -> str:
    """Return the --amp to use: auto becomes bf16 if that is faster, else none. Raises UserError if bf16 slows a CPU."""
    if amp not in ("auto", "bf16"):
        return amp
    if device.type == "cpu":
        gain = bf16_gain()
        slow = (
            f"--amp bf16: this processor takes {1 / gain:.1f} times as long in bfloat16 as in float32: use --amp none"
        )
        refuse_if(amp == "bf16" and gain < 1, slow)
        return "bf16" if gain > 1 else "none"
    if device.type == "cuda" and amp == "auto":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "none"
    return "none" if amp == "auto" else amp


class Precision:
    """How one network is called and updated: under autocast, for fp16 with a gradient scaler. fp16 needs CUDA."""

    def __init__(self, amp: str, device: torch.device) -> None:
        self.device_type = device.type
        self.dtype = HALF.get(amp) if device.type == "cuda" or amp == "bf16" else None
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype is torch.float16)

    def call(self, network: nn.Module, *inputs: Tensor | None, **options: Any) -> Any:
        """Return network(*inputs) in float32, computed in half precision if that was asked for.

        An input that is None is left out. A network may return one tensor or several.
        """
        given = [x for x in inputs if x is not None]
        if self.dtype is None:
            return network(*given, **options)
        with torch.autocast(self.device_type, self.dtype):
            found = network(*given, **options)
            return found.float() if isinstance(found, Tensor) else tuple(part.float() for part in found)

    def backward(self, loss: Tensor) -> None:
        """Add the loss's gradients to the present ones. The scaler keeps small ones from becoming 0."""
        self.scaler.scale(loss).backward()

    def update(self, optimizer: torch.optim.Optimizer) -> None:
        """Step the optimizer, unless the scaler finds that a gradient overflowed."""
        self.scaler.step(optimizer)
        self.scaler.update()


FULL = Precision("none", torch.device("cpu"))


def set_tf32(enabled: bool) -> None:
    """Allow or forbid CUDA to round float32 factors to TF32. torch's default allows it in convolutions only."""
    torch.backends.cuda.matmul.allow_tf32 = enabled
    torch.backends.cudnn.allow_tf32 = enabled


def set_deterministic() -> None:
    """Make torch use algorithms that give the same bits each time, and raise if an operation has none.

    On a CPU it does so anyway, for a fixed number of threads.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


@contextlib.contextmanager
def without_tf32() -> Iterator[None]:
    """Compute in full float32 within the context, so that a score does not depend on training's --tf32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    set_tf32(False)
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def keep_memory() -> None:
    """Make glibc keep freed memory for the next step, instead of returning every large tensor to the system.

    The kernel clears each page that it hands out again, which can take a fifth of a step on a CPU
    (docs/performance.md). Without glibc, this does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
