"""Regularizers of D: penalties and weight clipping, those that the paper compares with and later ones."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import relu
from torch.nn.utils import parametrize

Labels = Tensor | None  # (N,) int64: the classes of the images of a conditional D
STEP = 0.01  # of finite differences: the sigma of Lin et al. 2025


def input_gradient(D: nn.Module, x: Tensor, labels: Labels = None) -> Tensor:
    """Return the gradient of D's logits with respect to each image: (N, C, H, W), differentiable.

    labels: of the images, for a conditional D. D must treat images independently.
    """
    x = x.detach().requires_grad_(True)
    logits = D(x) if labels is None else D(x, labels)
    (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return gradient


def gradient_penalty(
    D: nn.Module, real: Tensor, fake: Tensor, alpha: Tensor, real_labels: Labels = None, labels: Labels = None
) -> Tensor:
    """Mean of (|grad D(x)| - 1)^2 at x between real and fake (Gulrajani et al. 2017, eq. 3). A scalar.

    real and fake are (N, C, H, W); alpha (N, 1, 1, 1) in [0, 1] places x on the line between each pair. A conditional D
    sees x with the label of the pair's real image.
    """
    x = alpha * real + (1 - alpha) * fake
    return (input_gradient(D, x, real_labels).flatten(1).norm(dim=1) - 1).square().mean()


def r1(
    D: nn.Module, real: Tensor, fake: Tensor, alpha: Tensor, real_labels: Labels = None, labels: Labels = None
) -> Tensor:
    """Half the mean of |grad D(real)|^2 (Mescheder et al. 2018, eq. 9). A scalar; fake and alpha are not used."""
    return 0.5 * input_gradient(D, real, real_labels).flatten(1).square().sum(dim=1).mean()


def r2(
    D: nn.Module, real: Tensor, fake: Tensor, alpha: Tensor, real_labels: Labels = None, labels: Labels = None
) -> Tensor:
    """R1 on samples instead, with the labels that they were drawn for (Mescheder et al. 2018, eq. 10). A scalar."""
    return r1(D, fake, fake, alpha, labels)


def r1_r2(
    D: nn.Module, real: Tensor, fake: Tensor, alpha: Tensor, real_labels: Labels = None, labels: Labels = None
) -> Tensor:
    """The sum of R1 and R2 (Huang et al. 2024, section 2.2). A scalar."""
    return r1(D, real, fake, alpha, real_labels) + r2(D, real, fake, alpha, real_labels, labels)


def finite_difference(
    D: Callable[[Tensor], Tensor], x: Tensor, noise: Tensor, logits: Tensor | None = None, step: float = STEP
) -> Tensor:
    """Half the mean of |D(x + s e) - D(x)|^2 / s^2, for e ~ N(0, I): R1 or R2 without a second derivative. A scalar.

    x and the noise e are (N, C, H, W); logits (N, 1): D(x), if already computed. For small s the term is half of
    (grad D(x) . e)^2, whose mean over e is |grad D(x)|^2, so the weights of R1 apply. Lin et al. 2025 (Seaweed-APT,
    arXiv 2501.08316) do not divide by 2 s^2: their weight of 100 is 0.02 here.
    """
    logits = D(x) if logits is None else logits
    return 0.5 * ((D(x + step * noise) - logits) / step).square().mean()


def lecam(real_logits: Tensor, fake_logits: Tensor, average_real: Tensor, average_fake: Tensor) -> Tensor:
    """Mean squared distance of D's logits (N, 1) from the moving average of the other side's. A scalar.

    Tseng et al. 2021, eq. 5, with the authors' relu: real logits count above the fake average, fake below the real.
    """
    return relu(real_logits - average_fake).square().mean() + relu(average_real - fake_logits).square().mean()


def orthonormal(D: nn.Module, *images: Tensor | None) -> Tensor | float:
    """Sum over D's linear layers and convolutions of |W W^T - I|_F^2 (Brock et al. 2017; Miyato et al. 2018, sec. 3).

    W is the reshaped weight (d_out, d_in * kernel size), or its transpose if d_out is larger, since at most
    min(rows, columns) singular values can be 1. A scalar; images are not used.
    """
    penalty: Tensor | float = 0.0
    for module in D.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            # Under a normalization, the original parameter, which the optimizer updates.
            wrapped = parametrize.is_parametrized(module, "weight")
            W = module.get_parameter("parametrizations.weight.original" if wrapped else "weight").flatten(1)
            gram = W @ W.t() if W.size(0) <= W.size(1) else W.t() @ W
            penalty = penalty + (gram - torch.eye(len(gram), dtype=W.dtype, device=W.device)).square().sum()
    return penalty


@torch.no_grad()
def clip_weights(D: nn.Module, bound: float) -> None:
    """Clamp every parameter of D to [-bound, bound] in place (Arjovsky et al. 2017, algorithm 1, line 7)."""
    for parameter in D.parameters():
        parameter.clamp_(-bound, bound)


class Regularizer(NamedTuple):
    """A choice of --regularizer: a penalty in D's loss, or a projection of D after its update.

    penalty(D, real, fake, alpha, real_labels, labels), of_logits(real_logits, fake_logits, average_real, average_fake)
    and finite_difference() at the images that `near` names, "real" or "fake", are multiplied by the weight.
    project(D, weight) takes it as its bound. on_gradient: on D's gradient, so that --regularizer_every applies to it.
    """

    default_weight: float
    penalty: Callable[..., Tensor | float] | None = None
    project: Callable[[nn.Module, float], None] | None = None
    of_logits: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] | None = None
    near: str | None = None
    on_gradient: bool = False


REGULARIZERS = {
    "none": Regularizer(0.0),
    "weight_clipping": Regularizer(0.01, project=clip_weights),
    "gradient_penalty": Regularizer(10.0, penalty=gradient_penalty, on_gradient=True),
    "r1": Regularizer(10.0, penalty=r1, on_gradient=True),
    "r2": Regularizer(10.0, penalty=r2, on_gradient=True),
    "r1_r2": Regularizer(10.0, penalty=r1_r2, on_gradient=True),
    "approximate_r1": Regularizer(10.0, near="real", on_gradient=True),
    "approximate_r2": Regularizer(10.0, near="fake", on_gradient=True),
    "lecam": Regularizer(0.3, of_logits=lecam),
    "orthonormal": Regularizer(1e-4, penalty=orthonormal),  # the paper gives no weight; this is BigGAN's (2019)
}
