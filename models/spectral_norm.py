"""Spectral normalization (Miyato et al. 2018): W_SN = W / sigma(W), where sigma(W) is the largest singular value of W.

W is a layer's weight, reshaped to a matrix with one row for each output. A training step changes W little, so one power
iteration in each training forward of D (in G's updates too) keeps the estimate of sigma close (algorithm 1).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from .precision import full_precision
from .weights import MatrixNorm, check_layer, fold_weight

WARMUP_ITERATIONS = 15  # at construction: the first estimates from a random u are far too small


@torch.no_grad()
def power_iteration(W: Tensor, u: Tensor, n_iterations: int = 1, eps: float = 1e-12) -> tuple[Tensor, Tensor, Tensor]:
    """Estimate the largest singular value of W (rows, columns) by power iteration (eq. 19 to 21).

    u (rows,): the previous estimate of the left singular vector. Returns (sigma, u, v): the scalar u^T W v, the new u
    and v (columns,). For W = 0, sigma is 0 and u does not change.
    """
    for _ in range(n_iterations):
        v = W.t() @ u
        v = v / torch.linalg.vector_norm(v).clamp_min(eps)
        Wv = W @ v
        sigma = torch.linalg.vector_norm(Wv)
        u = torch.where(sigma > eps, Wv / sigma.clamp_min(eps), u)
    return sigma, u, v


class Division(torch.autograd.Function):
    """W / sigma with the gradient of eq. 9 to 12: u and v are constants. It takes fewer passes over W than autograd."""

    generate_vmap_rule = True  # for torch.func.vmap

    @staticmethod
    def forward(W: Tensor, u: Tensor, v: Tensor, sigma: Tensor) -> Tensor:
        return W / sigma

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], W_SN: Tensor) -> None:
        ctx.save_for_backward(*inputs, W_SN)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        W, u, v, sigma, W_SN = ctx.saved_tensors
        if torch.is_grad_enabled():  # for second derivatives: the same value, as a function of W
            sigma = sigma + u @ ((W - W.detach()) @ v)
        inner = torch.dot(g.reshape(-1), W_SN.reshape(-1))
        return torch.addr(g, -inner * u, v) / sigma, None, None, None  # (g - <g, W_SN> u v^T) / sigma


class SpectralNorm(MatrixNorm):
    """The parametrization weight -> weight / sigma(weight), with the buffers u (rows of W,) and v (columns of W,).

    In each training forward of the layer, the first use of the weight advances u and v; no other use changes them.
    """

    u: Tensor
    v: Tensor

    def __init__(self, layer: nn.Module, n_power_iterations: int, eps: float) -> None:
        super().__init__(layer)
        self.n_power_iterations, self.eps = n_power_iterations, eps
        W = self.matrix(layer.get_parameter("weight").detach())
        u = F.normalize(torch.randn(len(W), dtype=W.dtype, device=W.device), dim=0)
        _, u, v = power_iteration(W, u, 1 if W.is_meta else WARMUP_ITERATIONS, eps)
        self.register_buffer("u", u)
        self.register_buffer("v", v)
        self.iterating, self.due = True, False  # u and v may advance (see iteration()); the next use advances them
        self.hooks = layer.register_forward_pre_hook(_before), layer.register_forward_hook(_after, always_call=True)

    def forward(self, weight: Tensor) -> Tensor:
        with full_precision(weight):
            W = self.matrix(weight)
            sigma, u, v = self.iterate(W) if self.due else self.estimate(W)
            sigma = torch.where(sigma > self.eps, sigma, 1.0)  # sigma <= 0 (W = 0, or u and v do not fit): keep W
            # Both give the same value and gradient: Division is faster, W / sigma works in every mode of torch.
            W_SN = Division.apply(W, u, v, sigma.detach()) if self.training else W / sigma
            return self.from_matrix(W_SN, weight)

    def iterate(self, W: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Advance the buffers u and v (algorithm 1, step 1). Returns (sigma, u, v), which no later forward changes."""
        self.due = False
        sigma, u, v = power_iteration(W.detach(), self.u.to(W.dtype), self.n_power_iterations, self.eps)
        torch.mul(u, 1, out=self.u)  # a copy: torch.func.grad forbids copy_()
        torch.mul(v, 1, out=self.v)
        return sigma, u, v

    def estimate(self, W: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (sigma, u, v) for the current u and v. They are copies: autograd keeps them, the buffers change."""
        u, v = self.u.to(W.dtype, copy=True), self.v.to(W.dtype, copy=True)
        return u @ (W @ v), u, v


def norm_of(layer: nn.Module) -> SpectralNorm | None:
    """Return this layer's own SpectralNorm, or None if its weight is not spectrally normalized."""
    weights: Any = getattr(layer, "parametrizations", {})
    norm = weights["weight"][0] if "weight" in weights else None
    return norm if isinstance(norm, SpectralNorm) else None


def _before(layer: nn.Module, inputs: Any) -> None:
    """Let the first use of the weight in this forward advance u and v."""
    if norm := norm_of(layer):
        norm.due = norm.training and norm.iterating


def _after(layer: nn.Module, inputs: Any, output: Any) -> None:
    """Advance u and v if the forward did not: it failed early, or parametrize.cached() held an earlier weight."""
    if (norm := norm_of(layer)) and norm.due:
        norm(layer.get_parameter("parametrizations.weight.original").detach())


def spectral_norm(module: nn.Module, n_power_iterations: int = 1, eps: float = 1e-12) -> nn.Module:
    """Apply spectral normalization to a layer's weight and return the layer.

    Initialise the weight first: u and v are fitted to it. Raises as check_layer() does, or if n_power_iterations < 1.
    """
    check_layer(module)
    if n_power_iterations < 1:
        raise ValueError(f"n_power_iterations must be at least 1, not {n_power_iterations}")
    return parametrize.register_parametrization(module, "weight", SpectralNorm(module, n_power_iterations, eps))


def remove_spectral_norm(module: nn.Module) -> nn.Module:
    """Make W / sigma the plain weight, in a layer or all of a network. Raises ValueError if nothing is normalized."""
    norms = {layer: norm for layer in module.modules() if (norm := norm_of(layer))}
    if not norms:
        raise ValueError(f"no layer of this {type(module).__name__} carries spectral normalization")
    for layer, norm in norms.items():
        for hook in norm.hooks:
            hook.remove()
        fold_weight(layer)
    return module
