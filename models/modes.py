"""In which of torch's modes a function runs: what is fastest when called at once is not what a trace should hold.

Where a graph is made of a forward, or a transform acts on it, the layers take the library's plain operations.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

T = TypeVar("T")


def transformed() -> bool:
    """Whether a transform of torch.func (vmap, grad, jvp, functionalize, ...) is at work."""
    return torch._C._are_functorch_transforms_active()


def at_once() -> bool:
    """Whether operations are computed as they are called, and differentiated backwards if at all.

    Not so in torch.compile, torch.export and torch.jit.trace, in a transform and within forward-mode differentiation.
    """
    return not (
        torch.compiler.is_compiling()
        or torch._C._is_tracing()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )


def is_plain(x: Tensor) -> bool:
    """Whether x is a tensor of torch's own and holds numbers: not a fake one, a proxy or another subclass."""
    return type(x) in (Tensor, nn.Parameter)


def constants(build: Callable[..., T]) -> Callable[..., T]:
    """Cache the constants that build(*key) makes; key has to say all that they depend on.

    Those made while a graph is, a transform or another mode at work, such as that of fake tensors, are not kept. Nor is
    any made in inference mode: it could not be used in training later.
    """
    kept: dict[Any, T] = {}

    @functools.wraps(build)
    def constant(*key: Any) -> T:
        if not at_once() or torch._C._len_torch_dispatch_stack() or _in_cuda_graph():
            return build(*key)
        if key not in kept:
            with torch.inference_mode(False):
                kept[key] = build(*key)
        return kept[key]

    return constant


def _in_cuda_graph() -> bool:
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()
