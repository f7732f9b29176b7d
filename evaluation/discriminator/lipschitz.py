"""The audit of a discriminator: its layers' spectra, its gradients and their upper bound (Miyato et al. 2018).

The paper bounds the norm of the reshaped weight (section 2.1). A convolution's norm as a map of images differs from it
(Sedghi, Gupta and Long 2019, arXiv 1805.10408), and only the product of these norms bounds D's Lipschitz constant.
"""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from models.conditional import given
from models.resampling import ConvAvgPool2d
from models.spectral_norm import power_iteration
from models.weights import fold_weight, weight_matrix

from .bounds import POOLING, Norms, Shapes, beside_image, lipschitz

FRACTIONS, BETWEEN_PAIRS = 9, 64  # points on a line between a real and a fake image; number of lines
BATCH = 64  # images whose gradients are computed at once
TOLERANCE = 1e-9  # relative, of an operator norm's square


@torch.enable_grad()
def input_gradient_norms(D: nn.Module, images: Tensor, labels: Tensor | None = None) -> Tensor:
    """The Euclidean norms (N,) of D's gradients at images (N, C, H, W), with their labels if any, detached.

    D must treat images independently, so it must be in eval mode if it has batch norms.
    """
    found = []
    for part in zip(*(parts.detach().split(BATCH) for parts in given(images, labels))):
        x = part[0].clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(D(x, *part[1:]).sum(), x)
        found.append(gradient.flatten(1).norm(dim=1))
    return torch.cat(found)


def singular_values(W: Tensor) -> Tensor:
    """All singular values of a weight reshaped to (rows, columns): (min(rows, columns),) float64, descending."""
    return torch.linalg.svdvals(weight_matrix(W.detach()).double())


def operator_norm(
    linear: Callable[[Tensor], Tensor], input_shape: Sequence[int], device: torch.device | str = "cpu", seed: int = 0
) -> float:
    """The largest singular value of a linear map A of float64 tensors (1, *input_shape).

    Its square is the largest eigenvalue of A^T A, found by the Lanczos method (ARPACK) with A^T from autograd. seed: of
    the start vector, so that the result is reproducible.
    """
    from scipy.sparse.linalg import LinearOperator, eigsh

    @torch.enable_grad()
    def normal(vector: np.ndarray) -> np.ndarray:
        """A^T A x."""
        x = torch.from_numpy(vector).view(1, *input_shape).to(device).requires_grad_(True)
        y = linear(x)
        return torch.autograd.grad(y, x, y.detach())[0].flatten().cpu().numpy()

    size = math.prod(input_shape)
    start = torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    start = (start / start.norm()).numpy()
    square = start @ normal(start)
    if size > 1 and square > 0:  # otherwise it is done: A maps a single number, or everything to 0
        squared = LinearOperator((size, size), normal, dtype=start.dtype)
        (square,) = eigsh(squared, k=1, v0=start, tol=TOLERANCE, return_eigenvectors=False)
    return math.sqrt(square)


@torch.no_grad()
def audit(D: nn.Module, real: Tensor, fake: Tensor, labels: Tensor | None = None) -> dict[str, Any]:
    """Bound and measure D's Lipschitz constant in eval mode, image to logit, without changing D.

    real, fake: images (N, C, H, W) in [-1, 1]; labels (N,): of both, if D is conditional. The bound is of all classes.
    Returns plain values: `layers` and `normalizations` in order of the forward pass; `upper_bound`, and the same from
    the reshaped weights' norms, `upper_bound_reshaped`, which is not a bound (both None if unknown, with the reason in
    `no_bound`); `gradient_norm` at real and fake images and between them, and its maximum, `lower_bound`.
    Raises ValueError if the weights of D are not finite.
    """
    if not all(value.isfinite().all() for value in D.state_dict().values()):
        raise ValueError("the weights of D are not finite")
    device = next(D.parameters()).device
    device = device if device.type == "cuda" else torch.device("cpu")  # other accelerators may have no float64
    D = _plain(D).to(device)
    exact = copy.deepcopy(D).double()
    real, fake = (images.to(device, torch.float32) for images in (real, fake))
    labels = None if labels is None else labels.to(device)
    shapes = _input_shapes(exact, *(parts[:2] for parts in given(real.double(), labels)))
    names = {module: name for name, module in exact.named_modules()}
    used = [module for module in shapes if isinstance(module, (nn.Linear, nn.Conv2d, nn.Embedding))]
    beside = beside_image(exact)
    layers = [{"name": names[layer], **_spectrum(layer, shapes[layer], beside.get(layer, 0))} for layer in used]
    norms: Norms = {layer: found["operator_norm"] for layer, found in zip(used, layers)}
    pooling = [POOLING if isinstance(layer, ConvAvgPool2d) else 1.0 for layer in used]  # it is not part of the weight
    reshaped: Norms = {layer: found["sigma_svd"] * factor for layer, found, factor in zip(used, layers, pooling)}
    normalizations = [module for module in shapes if isinstance(module, (_BatchNorm, nn.GroupNorm))]
    points = {"real": (real, labels), "fake": (fake, labels), "between": _between(real, fake, labels)}
    gradients = {name: input_gradient_norms(D, *seen) for name, seen in points.items()}
    told: dict[str, Any] = {"layers": layers, "normalizations": []}
    try:
        scales = [{"name": names[module], "lipschitz": lipschitz(module, norms, shapes)} for module in normalizations]
        told["normalizations"] = scales
        bounds = {"upper_bound": norms, "upper_bound_reshaped": reshaped}
        told |= {name: lipschitz(exact, found, shapes) for name, found in bounds.items()}
    except ValueError as error:  # the rest is known all the same
        told |= {"upper_bound": None, "upper_bound_reshaped": None, "no_bound": str(error)}
    return told | {
        "gradient_norm": {
            name: {"mean": found.mean().item(), "max": found.max().item(), "points": len(found)}
            for name, found in gradients.items()
        },
        "lower_bound": max(found.max().item() for found in gradients.values()),
    }


def _plain(D: nn.Module) -> nn.Module:
    """A copy of D in eval mode and float32, with effective weights as plain parameters."""
    D = copy.deepcopy(D).eval().requires_grad_(False).float()
    for layer in list(D.modules()):
        if parametrize.is_parametrized(layer, "weight"):
            fold_weight(layer)
    return D


def _input_shapes(D: nn.Module, *seen: Tensor) -> Shapes:
    """{module: shape of its input without N}, in the order of D's forward pass on images (N, C, H, W) and labels."""
    shapes: Shapes = {}

    def see(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        shapes.setdefault(module, tuple(inputs[0].shape[1:]))

    hooks = [module.register_forward_pre_hook(see) for module in D.modules()]
    D(*seen)
    for hook in hooks:
        hook.remove()
    return shapes


def _between(real: Tensor, fake: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Points on the lines between pairs of images, and their labels."""
    pairs = min(len(real), len(fake), BETWEEN_PAIRS)
    fractions = torch.linspace(0, 1, FRACTIONS + 2, device=real.device)[1:-1].view(-1, 1, 1, 1, 1)
    points = torch.lerp(real[:pairs], fake[:pairs], fractions).flatten(0, 1)
    return points, None if labels is None else labels[:pairs].repeat(FRACTIONS, *[1] * (labels.dim() - 1))


def _spectrum(layer: nn.Linear | nn.Conv2d | nn.Embedding, shape: Sequence[int], beside: int = 0) -> dict[str, Any]:
    """Audit a layer whose input is (1, *shape). Its last `beside` input channels encode the class.

    The operator norm is that of the map from the other channels, those of the image.
    """
    W, values = weight_matrix(layer.weight), singular_values(layer.weight)
    found = {
        "kind": _kind(layer),
        "input": list(shape),
        "weight": list(W.shape),
        "sigma_power_iteration": _iterated(W),
        "sigma_svd": values[0].item(),
        "operator_norm": values[0].item(),
        "singular_values": [float(f"{value:.6g}") for value in values.tolist()],
    }
    if isinstance(layer, nn.Embedding):
        return found | {"input": [len(W)]}  # the classes
    constant = layer(torch.zeros(1, *shape, dtype=W.dtype, device=W.device))  # the effect of the bias
    classes = torch.zeros(1, beside, *shape[1:], dtype=W.dtype, device=W.device)
    image = (shape[0] - beside, *shape[1:])
    norm = operator_norm(lambda x: layer(torch.cat([x, classes], dim=1)) - constant, image, W.device)
    return found | {"operator_norm": norm}


def _kind(layer: nn.Linear | nn.Conv2d | nn.Embedding) -> str:
    if not isinstance(layer, nn.Conv2d):
        return "Linear" if isinstance(layer, nn.Linear) else "Embedding"
    kind = f"Conv2d {'x'.join(map(str, layer.kernel_size))}"
    kind += f", stride {layer.stride[0]}" if layer.stride[0] > 1 else ""
    return kind + (" and pool" if isinstance(layer, ConvAvgPool2d) else "")


def _iterated(W: Tensor, rounds: int = 50, iterations: int = 20, tolerance: float = 1e-8) -> float:
    """Compute sigma by the paper's power iteration, from a random start until it converges."""
    u = torch.randn(len(W), dtype=W.dtype, generator=torch.Generator().manual_seed(0)).to(W.device)
    sigma = W.new_zeros(())
    for _ in range(rounds):
        before, (sigma, u, _) = sigma, power_iteration(W, u, iterations)
        if (sigma - before).abs() <= tolerance * sigma:
            break
    return sigma.item()


def table(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """The layers of an audit as rows of text, after a header."""
    rows: list[tuple[str, ...]] = [("layer", "kind", "weight", "power iteration", "SVD", "operator norm")]
    for layer in found["layers"]:
        sigmas = (f"{layer[name]:.4f}" for name in ("sigma_power_iteration", "sigma_svd", "operator_norm"))
        rows.append((layer["name"], layer["kind"], "x".join(map(str, layer["weight"])), *sigmas))
    return rows


def summary(found: dict[str, Any]) -> str:
    """An audit as text: a line for each layer, the gradients and the bounds."""
    rows = table(found)
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join([*map(str.ljust, row[:3], widths), *map(str.rjust, row[3:], widths[3:])]) for row in rows]
    lines += [f"{norm['name']}: scales by at most {norm['lipschitz']:.4g}" for norm in found["normalizations"]]
    for name, norms in found["gradient_norm"].items():
        lines.append(f"gradient norm, {name}: mean {norms['mean']:.4g}, maximum {norms['max']:.4g}")
    points = sum(norms["points"] for norms in found["gradient_norm"].values())
    if found["upper_bound"] is not None:
        lines.append(f"the product of the reshaped weights' norms is {found['upper_bound_reshaped']:.4g}, not a bound")
    seen = f"the steepest gradient seen at {points:,} points is {found['lower_bound']:.4g}"
    return "\n".join([*lines, f"{bound(found)}; {seen}"])


def bound(found: dict[str, Any]) -> str:
    """The bound of D's Lipschitz constant from an audit in words, or why there is none."""
    if found["upper_bound"] is None:
        return f"D's slope has no known bound: {found.get('no_bound')}"
    return f"D's slope is at most {found['upper_bound']:.4g} (product of the layers' true norms)"
