"""How a step computes: half precision, TF32 on CUDA, and memory that a process on the CPU keeps."""

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
    """How many times as fast this CPU convolves, forward and backward, in bfloat16 as in float32.

    Timed within 0.1 s, since a processor's flags do not tell: without the instructions it is emulated and slower, and
    so it was on a virtual Intel machine whose flags had them.
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
    """The --amp of a device: auto becomes bf16 if that is faster, else none. UserError for bf16 on a CPU without it."""
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
    """How one network is called and updated: under autocast, for fp16 with a gradient scaler. fp16 is for CUDA only."""

    def __init__(self, amp: str, device: torch.device) -> None:
        self.device_type = device.type
        self.dtype = HALF.get(amp) if device.type == "cuda" or amp == "bf16" else None
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype is torch.float16)

    def call(self, network: nn.Module, *inputs: Tensor | None, **options: Any) -> Any:
        """network(*inputs), where half precision was asked for computed in it, and returned in float32.

        An input that is None is left out. A network may return one tensor or several.
        """
        given = [x for x in inputs if x is not None]
        if self.dtype is None:
            return network(*given, **options)
        with torch.autocast(self.device_type, self.dtype):
            found = network(*given, **options)
            return found.float() if isinstance(found, Tensor) else tuple(part.float() for part in found)

    def backward(self, loss: Tensor) -> None:
        """Add the loss's gradients to what is there. The scaler keeps small ones off zero."""
        self.scaler.scale(loss).backward()

    def update(self, optimizer: torch.optim.Optimizer) -> None:
        """One step of the optimizer, which the scaler skips where a gradient overflowed."""
        self.scaler.step(optimizer)
        self.scaler.update()


FULL = Precision("none", torch.device("cpu"))


def set_tf32(enabled: bool) -> None:
    """Whether CUDA may round float32 factors to TF32; torch's own default allows it in convolutions alone."""
    torch.backends.cuda.matmul.allow_tf32 = enabled
    torch.backends.cudnn.allow_tf32 = enabled


def set_deterministic() -> None:
    """Make torch take algorithms that give the same bits each time, and raise where there is none.

    On a CPU it does so anyway, for a number of threads.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


@contextlib.contextmanager
def without_tf32() -> Iterator[None]:
    """Full float32 within, so that a score does not depend on how the training was made fast."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    set_tf32(False)
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def keep_memory() -> None:
    """Make glibc keep freed memory for the next step, in place of returning every large tensor to the system.

    The kernel clears each page that is handed out anew: without this, up to a fifth of a step on a CPU
    (docs/performance.md). A hint: elsewhere than on Linux with glibc it does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
