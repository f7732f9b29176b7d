"""Spectral normalization by power iteration: Miyato et al. 2018, section 2 and appendix A, algorithm 1.

W_SN = W / sigma(W), where sigma(W), the largest singular value of the reshaped weight, is estimated by one power
iteration per training forward. Reading `layer.weight` is pure: only a training forward advances u and v.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from .modes import at_once, transformed

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
SUPPORTED = (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)

# A random u has a tiny component along the leading singular vector, so sigma before the first update would be off by
# orders of magnitude: this many iterations at construction make an untrained network usable in eval mode.
WARMUP_ITERATIONS = 15


def power_iteration(W: Tensor, u: Tensor, n_iterations: int = 1, eps: float = 1e-12) -> tuple[Tensor, Tensor, Tensor]:
    """Estimate the largest singular value of a matrix and its singular vectors (Miyato et al. 2018, eq. 19 to 21).

    W is (rows, columns), u (rows,) the current left vector. Returns (sigma, u, v): a scalar, (rows,), (columns,).
    sigma = u^T W v is differentiable in W; u and v are constants for autograd. A zero W gives sigma 0 and keeps u.
    """
    if n_iterations < 1:
        raise ValueError(f"power iteration needs at least one iteration, not {n_iterations}")
    u, v, _ = _iterate(W, u, n_iterations, eps)
    return torch.dot(u, W @ v), u, v


@torch.no_grad()
def _iterate(W: Tensor, u: Tensor, n_iterations: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the new u and v, and the norm of W v: with them it is u^T W v."""
    for _ in range(n_iterations):
        v = W.t() @ u
        v.div_(torch.linalg.vector_norm(v).clamp_min_(eps))
        Wv = W @ v
        sigma = torch.linalg.vector_norm(Wv)
        u = torch.where(sigma > eps, Wv / sigma.clamp_min(eps), u)
    return u, v, sigma


def weight_matrix(weight: Tensor, transposed: bool = False, groups: int = 1) -> Tensor:
    """Reshape a layer's weight to (d_out, d_in * kernel size), the matrix whose spectral norm the paper bounds.

    A transposed convolution stores (d_in, d_out / groups, ...): its output channels move to the front, group by group.
    """
    if transposed:
        weight = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)  # (d_out, d_in / groups, ...)
    return weight.flatten(1)


def channels_innermost(weight: Tensor) -> bool:
    """Whether a convolution's weight lies in memory with its input channels innermost."""
    return weight.dim() == 4 and not weight.is_contiguous() and weight.permute(0, 2, 3, 1).is_contiguous()


def _in_memory_order(tensor: Tensor, weight: Tensor) -> Tensor:
    """Reshape a tensor (a number of weights, or v) to a matrix with its columns in the order of weight's memory.

    No singular value depends on that order, and what lies so already need not be copied.
    """
    tensor = tensor.view(-1, *weight.shape[1:])
    tensor = tensor.permute(0, 2, 3, 1) if channels_innermost(weight) else tensor
    return tensor.reshape(tensor.size(0), weight.shape[1:].numel())  # a batch of gradients cannot flatten()


def _from_memory_order(matrix: Tensor, weight: Tensor) -> Tensor:
    """Undo _in_memory_order(): (rows, columns) to (rows, *weight.shape[1:])."""
    if not channels_innermost(weight):
        return matrix.view(-1, *weight.shape[1:])
    return matrix.view(-1, *weight.shape[2:], weight.size(1)).permute(0, 3, 1, 2)


def _divisor(sigma: Tensor, eps: float) -> Tensor:
    """sigma, but 1 where it is none, so that a zero weight stays zero."""
    return torch.where(sigma > eps, sigma, 1.0)


class Division(torch.autograd.Function):
    """weight / sigma with the gradient of the paper's equations 9 to 12, for a weight whose rows are W's.

    It is the gradient that autograd finds by itself through sigma = u^T W v, in fewer passes over the weight. v has the
    order of the weight's memory. Only where operations are computed at once; its backward runs under vmap too.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, u: Tensor, v: Tensor, sigma: Tensor, eps: float) -> Tensor:
        divisor = _divisor(sigma, eps)
        result = weight / divisor.to(weight.dtype)
        ctx.save_for_backward(weight, result, u, v, sigma, divisor)
        ctx.eps = eps
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, result, u, v, sigma, divisor = ctx.saved_tensors
        if torch.is_grad_enabled():  # this gradient will itself be differentiated: through sigma too
            sigma = torch.dot(u, _in_memory_order(weight, weight).to(u.dtype) @ v)
            divisor = _divisor(sigma, ctx.eps)
        G, W_SN = (_in_memory_order(tensor, weight).to(u.dtype) for tensor in (gradient, result))
        inner = torch.dot(G.reshape(-1), W_SN.reshape(-1)) * (divisor == sigma)
        G = torch.addr(G, -inner * u, v).div_(divisor)
        return _from_memory_order(G, weight).to(weight.dtype), None, None, None, None


class SpectralNorm(nn.Module):
    """The parametrization weight -> weight / sigma(weight), with buffers u (d_out,) and v (d_in * kernel size,)."""

    u: Tensor
    v: Tensor

    def __init__(self, module: nn.Module, n_power_iterations: int = 1, eps: float = 1e-12) -> None:
        super().__init__()
        self.n_power_iterations, self.eps = n_power_iterations, eps
        self.transposed, self.groups = isinstance(module, TRANSPOSED), getattr(module, "groups", 1)
        weight = module.get_parameter("weight").detach()
        W = self._matrix(weight)
        u = F.normalize(torch.randn(W.size(0), dtype=W.dtype, device=W.device), dim=0)
        u, v, _ = _iterate(W, u, 1 if W.is_meta else WARMUP_ITERATIONS, eps)
        self.register_buffer("u", u)
        self.register_buffer("v", self._from_memory(v, weight))
        self.iterating = True
        self.due = False  # in a training forward, until its first reading of the weight has advanced u and v

    def _matrix(self, weight: Tensor) -> Tensor:
        """The reshaped weight; its columns, and so those of v beside it, have the order of the weight's memory."""
        W = weight_matrix(weight, True, self.groups) if self.transposed else _in_memory_order(weight, weight)
        return W if W.dtype == torch.float64 else W.float()  # in half precision eps is 0 and the norms overflow

    def _to_memory(self, v: Tensor, weight: Tensor) -> Tensor:
        return v if self.transposed else _in_memory_order(v, weight)[0]

    def _from_memory(self, v: Tensor, weight: Tensor) -> Tensor:
        return v if self.transposed else _from_memory_order(v, weight).flatten()

    @torch.no_grad()
    def iterate(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Advance u and v in place by n_power_iterations. Returns copies, v's in the order of memory, and sigma."""
        self.due = False
        weight = weight if at_once() else weight.detach()  # no_grad() leaves the derivatives of forward mode
        with _no_autocast(weight):
            W = self._matrix(weight)
            u, v, sigma = _iterate(W, self.u.to(W.dtype), self.n_power_iterations, self.eps)
        _write(self.u, u)
        _write(self.v, self._from_memory(v, weight))
        return u, v, sigma

    def _estimate(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # Clones, since autograd keeps them until the backward, and another forward may advance the buffers before it.
        W = self._matrix(weight)
        u, v = (vector.to(W.dtype, copy=True) for vector in (self.u, self._to_memory(self.v, weight)))
        return u, v, torch.dot(u, W @ v)

    def sigma(self, weight: Tensor) -> Tensor:
        """The current estimate u^T W v of the largest singular value, differentiable in the weight."""
        with _no_autocast(weight):
            return self._estimate(weight)[2]

    def forward(self, weight: Tensor) -> Tensor:
        found = self.iterate(weight) if self.due else None
        with _no_autocast(weight):
            if self.transposed or not at_once():  # autograd's own way, which every mode can follow
                return weight / _divisor(self._estimate(weight)[2], self.eps).to(weight.dtype)
            if found is None:
                with torch.no_grad():
                    found = self._estimate(weight)
            return Division.apply(weight, *found, self.eps)


def _write(buffer: Tensor, value: Tensor) -> None:
    """buffer.copy_(value), without a derivative, also from within a transform that buffer is outside of."""
    if torch.compiler.is_compiling() or not transformed():
        buffer.copy_(value)
        return
    from torch._functorch.pyfunctorch import retrieve_current_functorch_interpreter

    transform = retrieve_current_functorch_interpreter()
    if transform.key() not in (torch._C._functorch.TransformType.Grad, torch._C._functorch.TransformType.Jvp):
        buffer.copy_(value)  # vmap: to each its own
        return
    level, tensors = transform.level(), (buffer, value.detach())
    unwrapped = (
        torch._C._functorch.get_unwrapped(tensor) if torch._C._functorch.maybe_get_level(tensor) == level else tensor
        for tensor in tensors
    )
    with transform.lower():
        _write(*unwrapped)


def _no_autocast(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Autocast would take the norms and products of u, v and W to half precision."""
    kind = tensor.device.type
    # torch.compile of torch 2.6 cannot ask the second
    known = (torch.compiler.is_compiling() and kind != "meta") or torch.amp.is_autocast_available(kind)
    enabled = known and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if enabled else contextlib.nullcontext()


def _iterate_in_training(parametrized: Any) -> None:
    """Have the training forwards of a layer of this class, which parametrize made for it, advance u and v once.

    They do when they read the weight, so that what they divide by is of this very weight. A hook would survive torch's
    remove_parametrizations(), which takes this class away.
    """
    plain = parametrized.forward

    @functools.wraps(plain)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Tensor:
        weight: Any = getattr(self.parametrizations, "weight", None)
        norm = None if weight is None else weight[0]
        if not (self.training and isinstance(norm, SpectralNorm) and norm.iterating):
            return plain(self, *args, **kwargs)
        norm.due = True
        try:
            output = plain(self, *args, **kwargs)
            if norm.due:  # parametrize.cached() or a forward of its own read no weight
                norm.iterate(weight.original)
            return output
        finally:
            norm.due = False

    parametrized.forward = forward


@contextlib.contextmanager
def iteration(network: nn.Module, enabled: bool) -> Iterator[None]:
    """Within it, training forwards of the network advance its u and v, or do not."""
    before = {module: module.iterating for module in network.modules() if isinstance(module, SpectralNorm)}
    for module in before:
        module.iterating = enabled
    try:
        yield
    finally:
        for module, value in before.items():
            module.iterating = value


def is_spectrally_normalized(module: nn.Module) -> bool:
    """Whether this very layer (not its children) carries spectral_norm()."""
    wrapped = parametrize.is_parametrized(module, "weight")
    return wrapped and isinstance(module.get_submodule("parametrizations.weight.0"), SpectralNorm)


def spectral_norm(module: nn.Module, n_power_iterations: int = 1, eps: float = 1e-12) -> nn.Module:
    """Put a layer's weight under spectral normalization and return the layer.

    The state dict then holds `parametrizations.weight.original`, `...weight.0.u` and `...weight.0.v`. Initialise the
    weight first: what is written into it afterwards changes sigma. Raises TypeError for a layer that is not Linear,
    Embedding or a (transposed) convolution, ValueError for one whose weight is parametrized already.
    """
    if not isinstance(module, SUPPORTED):
        raise TypeError(
            f"spectral_norm takes Linear, Embedding and (transposed) convolutions, not {type(module).__name__}"
        )
    if parametrize.is_parametrized(module, "weight"):
        raise ValueError(f"the weight of this {type(module).__name__} is parametrized already")
    if n_power_iterations < 1:
        raise ValueError(f"n_power_iterations must be at least 1, not {n_power_iterations}")
    parametrize.register_parametrization(module, "weight", SpectralNorm(module, n_power_iterations, eps))
    _iterate_in_training(type(module))
    return module


def remove_spectral_norm(module: nn.Module) -> nn.Module:
    """Fold W / sigma into plain weights, in a layer or in every layer of a network; outputs in eval mode do not change.

    Returns the module. Raises ValueError where nothing carries spectral normalization.
    """
    layers = [layer for layer in module.modules() if is_spectrally_normalized(layer)]
    if not layers:
        raise ValueError(f"no layer of this {type(module).__name__} carries spectral normalization")
    for layer in layers:
        fold_weight(layer)
    return module


def fold_weight(layer: nn.Module) -> None:
    """Replace the parametrized weight of a layer by a plain one of the same value."""
    # A deep copy shares its class, and with it the property `weight`, with the original: give the layer its own.
    shared = type(layer)
    layer.__class__ = type(shared.__name__, shared.__bases__, dict(vars(shared)))
    parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
