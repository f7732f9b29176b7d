"""How steep a discriminator is: the spectra of its layers, what they bound, and its gradients (Miyato et al. 2018).

The paper bounds the norm of the reshaped weight (section 2.1). A convolution's norm as a map of images is another
number (Sedghi, Gupta and Long 2019, arXiv 1805.10408), and the product of such norms is what bounds D's slope.
"""

import copy
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from models import dcgan, mlp, resnet
from models.convolution import Conv2d
from models.resampling import ConvAvgPool2d
from models.spectral_norm import fold_weight, power_iteration, weight_matrix

POOLING = 0.5  # the norm of 2x2 average pooling: each output is half the inner product with a unit vector of its own
FRACTIONS, BETWEEN_PAIRS = 9, 64  # points on a line between a real image and a fake one, and such lines
BATCH = 64  # images whose gradients are taken at once


@torch.enable_grad()
def input_gradient_norms(D: nn.Module, images: Tensor) -> Tensor:
    """The Euclidean norm of D's gradient at each of the images (N, C, H, W): (N,), detached.

    D must treat images independently: in eval mode, where it has batch norms.
    """
    found = []
    for part in images.detach().split(BATCH):
        x = part.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(D(x).sum(), x)
        found.append(gradient.flatten(1).norm(dim=1))
    return torch.cat(found)


def singular_values(W: Tensor) -> Tensor:
    """All singular values of a weight, reshaped to (rows, columns): (min(rows, columns),) float64, descending."""
    return torch.linalg.svdvals(weight_matrix(W.detach()).double())


def operator_norm(
    linear: Callable[[Tensor], Tensor],
    input_shape: Sequence[int],
    device: torch.device | str = "cpu",
    tolerance: float = 1e-6,
    max_iterations: int = 200,
    seed: int = 0,
) -> float:
    """The largest singular value of a linear map A of float64 tensors (1, *input_shape): a float.

    Lanczos's method: power iteration on A^T A from a random start, A^T being autograd's, that keeps the vectors on its
    way and takes the best of their span (Golub and Kahan 1965): tens of steps where power iteration takes hundreds. It
    ends where |A^T A x - s^2 x| <= tolerance * s^2 for a unit x, or after max_iterations; s is reached from below.
    """
    x = torch.randn(math.prod(input_shape), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    basis = torch.empty(max_iterations, len(x), dtype=x.dtype, device=device)  # orthonormal rows
    basis[0] = x / x.norm()
    T = torch.zeros(max_iterations, max_iterations, dtype=x.dtype)  # A^T A in that basis: tridiagonal
    for k in range(max_iterations):
        w = _normal_map(linear, basis[k].view(1, *input_shape)).flatten()
        T[k, k] = w @ basis[k]
        for _ in range(2):  # once is not enough: rounding would bring back copies of what has converged
            w = w - (basis[: k + 1] @ w) @ basis[: k + 1]
        rest = w.norm().item()
        squares, vectors = torch.linalg.eigh(T[: k + 1, : k + 1])
        if rest * vectors[-1, -1].abs() <= tolerance * squares[-1] or k + 1 == max_iterations:
            break
        T[k, k + 1] = T[k + 1, k] = rest
        basis[k + 1] = w / rest
    return squares[-1].clamp_min(0).sqrt().item()


@torch.enable_grad()
def _normal_map(linear: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A^T A x."""
    x = x.detach().requires_grad_(True)
    y = linear(x)
    return torch.autograd.grad(y, x, y.detach())[0]


# ---- What bounds a network -----------------------------------------------------------------------------------------

Norms = dict[nn.Module, float]
Shapes = dict[nn.Module, tuple[int, ...]]


def lipschitz(module: nn.Module, norms: Norms, shapes: Shapes) -> float:
    """An upper bound of a module's Lipschitz constant in eval mode, in Euclidean norms: a float.

    norms: {linear layer or convolution: its norm}; shapes: {module: the shape of its input without N}. ValueError for a
    module whose slope no bound is known of.
    """
    for kind in type(module).__mro__:
        if kind in BOUNDS:
            return BOUNDS[kind](module, norms, shapes)
    raise ValueError(f"no bound is known of the slope of a {type(module).__name__}")


def _of_sequence(modules: Iterable[nn.Module], norms: Norms, shapes: Shapes) -> float:
    return math.prod(lipschitz(module, norms, shapes) for module in modules)


def _of_batch_norm(module: _BatchNorm, *_: Any) -> float:
    if module.running_var is None:
        raise ValueError("no bound is known of the slope of a batch norm without running statistics")
    gain = 1.0 if module.weight is None else module.weight.double()
    return (gain / (module.running_var.double() + module.eps).sqrt()).abs().max().item()


def _of_group_norm(module: nn.GroupNorm, *_: Any) -> float:
    # With c the centred input of n numbers and s^2 = |c|^2 / n + eps, the Jacobian is (I - c c^T / (n s^2)) / s after a
    # projection: at most 1 / s, and that is 1 / sqrt(eps) at c = 0, so that no smaller bound holds for all inputs.
    gain = 1.0 if module.weight is None else module.weight.abs().max().item()
    return gain / math.sqrt(module.eps)


def _of_down_block(block: resnet.DownBlock, norms: Norms, shapes: Shapes) -> float:
    residual = _of_sequence((block.norm1, block.conv1, block.norm2, block.conv2), norms, shapes)  # and ReLUs
    return residual + lipschitz(block.shortcut, norms, shapes) * (POOLING if block.down else 1.0)


def _of_resnet(D: resnet.Discriminator, norms: Norms, shapes: Shapes) -> float:
    _, height, width = shapes[D.norm]
    summing = math.sqrt(height * width)  # each channel's inner product with a vector of ones
    return summing * _of_sequence((D.blocks, D.norm, D.head), norms, shapes)


BOUNDS: dict[type, Callable[..., float]] = {
    nn.Linear: lambda module, norms, shapes: norms[module],
    nn.Conv2d: lambda module, norms, shapes: norms[module],
    nn.Identity: lambda *_: 1.0,
    nn.Flatten: lambda *_: 1.0,
    nn.ReLU: lambda *_: 1.0,
    nn.LeakyReLU: lambda module, *_: max(1.0, abs(module.negative_slope)),
    _BatchNorm: _of_batch_norm,
    nn.GroupNorm: _of_group_norm,
    nn.Sequential: _of_sequence,
    resnet.DownBlock: _of_down_block,
    resnet.Discriminator: _of_resnet,
    dcgan.Discriminator: lambda D, norms, shapes: _of_sequence((D.layers, D.head), norms, shapes),
    mlp.Discriminator: lambda D, norms, shapes: lipschitz(D.layers, norms, shapes),
}


# ---- The audit -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def audit(D: nn.Module, real: Tensor, fake: Tensor) -> dict[str, Any]:
    """Measure how steep D is in eval mode, on real and fake images (N, C, H, W) in [-1, 1]. D itself is not changed.

    Returns plain values: `layers` and `normalizations`, in the order of the forward; `upper_bound` of D's Lipschitz
    constant, image to logit, in Euclidean norms, and `upper_bound_reshaped`, what the same composition gives with the
    norms of the reshaped weights, which is no bound; `gradient_norm` at real and fake images and at points between
    them, and their maximum, `lower_bound`. ValueError for a D that cannot be bounded or is not finite.
    """
    if not all(value.isfinite().all() for value in D.state_dict().values()):
        raise ValueError("the weights of D are not finite")
    D = _plain(D)
    exact = copy.deepcopy(D).double()
    device = next(D.parameters()).device
    real, fake = (images.to(device, torch.float32) for images in (real, fake))
    shapes = _input_shapes(exact, real[:2].double())
    names = {module: name for name, module in exact.named_modules()}
    used = [module for module in shapes if isinstance(module, (nn.Linear, nn.Conv2d))]
    layers = [{"name": names[layer], **_spectrum(layer, shapes[layer])} for layer in used]
    norms: Norms = {layer: found["operator_norm"] for layer, found in zip(used, layers)}
    pooling = [POOLING if isinstance(layer, ConvAvgPool2d) else 1.0 for layer in used]  # is not in the weight
    reshaped: Norms = {layer: found["sigma_svd"] * factor for layer, found, factor in zip(used, layers, pooling)}
    normalizations = [module for module in shapes if isinstance(module, (_BatchNorm, nn.GroupNorm))]
    gradients = {name: input_gradient_norms(D, images) for name, images in _points(real, fake).items()}
    return {
        "layers": layers,
        "normalizations": [
            {"name": names[module], "lipschitz": lipschitz(module, norms, shapes)} for module in normalizations
        ],
        "upper_bound": lipschitz(exact, norms, shapes),
        "upper_bound_reshaped": lipschitz(exact, reshaped, shapes),
        "gradient_norm": {
            name: {"mean": found.mean().item(), "max": found.max().item(), "points": len(found)}
            for name, found in gradients.items()
        },
        "lower_bound": max(found.max().item() for found in gradients.values()),
    }


def _plain(D: nn.Module) -> nn.Module:
    """A copy of D in eval mode and float32, with its effective weights as plain ones."""
    D = copy.deepcopy(D).eval().requires_grad_(False).float()
    for layer in list(D.modules()):
        if parametrize.is_parametrized(layer, "weight"):
            fold_weight(layer)
    return D


def _input_shapes(D: nn.Module, images: Tensor) -> Shapes:
    """{module: the shape of its input without N}, in the order of the forward of images (N, C, H, W)."""
    shapes: Shapes = {}

    def see(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        shapes.setdefault(module, tuple(inputs[0].shape[1:]))

    hooks = [module.register_forward_pre_hook(see) for module in D.modules()]
    D(images)
    for hook in hooks:
        hook.remove()
    return shapes


def _points(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """Where D's gradient is looked at: the images, and points on the lines between pairs of them."""
    pairs = min(len(real), len(fake), BETWEEN_PAIRS)
    fractions = torch.linspace(0, 1, FRACTIONS + 2, device=real.device)[1:-1].view(-1, 1, 1, 1, 1)
    return {"real": real, "fake": fake, "between": torch.lerp(real[:pairs], fake[:pairs], fractions).flatten(0, 1)}


def _spectrum(layer: nn.Linear | nn.Conv2d, shape: Sequence[int]) -> dict[str, Any]:
    """What the audit says of a layer whose input is (1, *shape)."""
    W, values = weight_matrix(layer.weight), singular_values(layer.weight)
    # The library's way of convolving: for a single image, other ways spend more on the weight than they save.
    forward = functools.partial(nn.Conv2d.forward, layer) if isinstance(layer, Conv2d) else layer
    constant = forward(torch.zeros(1, *shape, dtype=W.dtype, device=W.device))  # what the bias makes of nothing
    return {
        "kind": _kind(layer),
        "input": list(shape),
        "weight": list(W.shape),
        "sigma_power_iteration": _iterated(W),
        "sigma_svd": values[0].item(),
        "operator_norm": operator_norm(lambda x: forward(x) - constant, shape, W.device),
        "singular_values": [float(f"{value:.6g}") for value in values.tolist()],
    }


def _kind(layer: nn.Linear | nn.Conv2d) -> str:
    if isinstance(layer, nn.Linear):
        return "Linear"
    kind = f"Conv2d {'x'.join(map(str, layer.kernel_size))}"
    kind += f", stride {layer.stride[0]}" if layer.stride[0] > 1 else ""
    return kind + (" and pool" if isinstance(layer, ConvAvgPool2d) else "")


def _iterated(W: Tensor, rounds: int = 50, iterations: int = 20, tolerance: float = 1e-8) -> float:
    """sigma by the paper's power iteration, from a random start until it stands still."""
    u = torch.randn(len(W), dtype=W.dtype, generator=torch.Generator().manual_seed(0)).to(W.device)
    sigma = W.new_zeros(())
    for _ in range(rounds):
        before, (sigma, u, _) = sigma, power_iteration(W, u, iterations)
        if (sigma - before).abs() <= tolerance * sigma:
            break
    return sigma.item()


def table(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """The layers of an audit as rows of text, a header first."""
    rows: list[tuple[str, ...]] = [("layer", "kind", "weight", "power iteration", "SVD", "operator norm")]
    for layer in found["layers"]:
        sigmas = (f"{layer[name]:.4f}" for name in ("sigma_power_iteration", "sigma_svd", "operator_norm"))
        rows.append((layer["name"], layer["kind"], "x".join(map(str, layer["weight"])), *sigmas))
    return rows


def summary(found: dict[str, Any]) -> str:
    """An audit for a person: a line for each layer, the gradients, the bounds, and what they mean."""
    rows = table(found)
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join([*map(str.ljust, row[:3], widths), *map(str.rjust, row[3:], widths[3:])]) for row in rows]
    lines += [f"{norm['name']}: scales by {norm['lipschitz']:.4g} at most" for norm in found["normalizations"]]
    for name, norms in found["gradient_norm"].items():
        lines.append(f"gradient norm, {name}: {norms['mean']:.4g} in the mean, {norms['max']:.4g} at most")
    points = sum(norms["points"] for norms in found["gradient_norm"].values())
    lines.append(f"the reshaped weights' norms multiply to {found['upper_bound_reshaped']:.4g}, which is no bound")
    lines.append(
        f"D's slope is at most {found['upper_bound']:.4g} (product of the layers' true norms); the steepest gradient "
        f"seen at {points:,} points is {found['lower_bound']:.4g}"
    )
    return "\n".join(lines)
