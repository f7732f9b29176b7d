"""Adversarial losses, each a pair (d_loss, g_loss) of functions of logits (N, 1) that return scalar means.

Everything is minimised; hinge and wasserstein are after Miyato et al. 2018, eq. 16 and 17.
"""

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.nn.functional import relu, softplus


def bce_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Binary cross-entropy on logits (Goodfellow et al. 2014, eq. 1)."""
    return softplus(-real_logits).mean() + softplus(fake_logits).mean()


def bce_g(fake_logits: Tensor) -> Tensor:
    """The non-saturating form (Goodfellow et al. 2014, section 3)."""
    return softplus(-fake_logits).mean()


def hinge_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Miyato et al. 2018, eq. 16."""
    return relu(1 - real_logits).mean() + relu(1 + fake_logits).mean()


def wasserstein_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """The negated critic objective of Arjovsky et al. 2017, algorithm 1."""
    return fake_logits.mean() - real_logits.mean()


def critic_g(fake_logits: Tensor) -> Tensor:
    """The generator's loss for both hinge and wasserstein (Miyato et al. 2018, eq. 17)."""
    return -fake_logits.mean()


def relativistic_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Compare each real image with one sample (Jolicoeur-Martineau 2019, section 4; Huang et al. 2024, eq. 2)."""
    return softplus(fake_logits - real_logits).mean()


def relativistic_g(fake_logits: Tensor, real_logits: Tensor) -> Tensor:
    """The same with the sides exchanged; needs as many real images as samples."""
    return softplus(real_logits - fake_logits).mean()


def lsgan_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Mao et al. 2017, eq. 9: targets 1 for real and 0 for fake, halved."""
    return 0.5 * ((real_logits - 1).square().mean() + fake_logits.square().mean())


def lsgan_g(fake_logits: Tensor) -> Tensor:
    """Mao et al. 2017, eq. 9: target 1, halved."""
    return 0.5 * (fake_logits - 1).square().mean()


# Losses whose g_loss(fake_logits, real_logits) compares samples with real images: G's batch then has both.
PAIRED = ("relativistic",)
# The logit between D's targets for real and for fake; wasserstein and relativistic have no targets.
BOUNDARIES = {"bce": 0.0, "hinge": 0.0, "lsgan": 0.5}


def boundary(loss: str, real_logits: Tensor, fake_logits: Tensor) -> Tensor | float:
    """Return the logit between D's targets for real and fake. Without targets, it is the midpoint of the means."""
    return BOUNDARIES.get(loss, (real_logits.mean() + fake_logits.mean()) / 2)


def accuracy(loss: str, real_logits: Tensor, fake_logits: Tensor, means: Sequence[Tensor] | Tensor = ()) -> Tensor:
    """Return the share of images that D's logits (N, 1) put on the right side of the boundary. A scalar.

    An image on the boundary counts half. For wasserstein and relativistic, the boundary is the midpoint of `means`, the
    mean real and fake logits of all ranks, or of the means of the logits given.
    """
    middle = boundary(loss, *(means if len(means) else (real_logits, fake_logits)))
    return 0.5 + ((real_logits - middle).sign().mean() - (fake_logits - middle).sign().mean()) / 4


LOSSES: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "bce": (bce_d, bce_g),
    "hinge": (hinge_d, critic_g),
    "wasserstein": (wasserstein_d, critic_g),
    "lsgan": (lsgan_d, lsgan_g),
    "relativistic": (relativistic_d, relativistic_g),
}
