"""The batches and objectives of both updates: the losses and regularizers of a configuration."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from losses import LOSSES, PAIRED, REGULARIZERS, Regularizer, finite_difference
from models.augmentation import Augmented, augment
from models.normalization import iteration
from settings.config import Config
from utils.distributed import local
from utils.precision import FULL, Precision

from .ema import LogitAverages


class View(NamedTuple):
    """Images (N, C, H, W) for D, labels (N,) of conditional networks, and draws of the augmentation."""

    images: Tensor
    labels: Any = None
    drawn: Tensor | None = None


class Batch(NamedTuple):
    """The inputs of one update, with all random numbers drawn; None for inputs that it does not need.

    z: latents (N, z_dim). real: images (N, C, H, W) in [-1, 1]. alpha: (N, 1, 1, 1) in [0, 1], the points between real
    and fake at which the gradient penalty is taken. fake: samples from z; D's update draws them itself. labels and
    real_labels: classes of z (and so of fake) and of real, (N,) int64, for conditional networks. drawn and real_drawn:
    augmentations of fake and real by models.augmentation.draw(). noise: (N, C, H, W), directions of finite differences.
    """

    z: Tensor
    real: Tensor | None = None
    alpha: Tensor | None = None
    fake: Tensor | None = None
    labels: Tensor | None = None
    real_labels: Tensor | None = None
    drawn: Tensor | None = None
    real_drawn: Tensor | None = None
    noise: Any = None

    def local(self) -> "Batch":
        """This rank's share of a global batch."""
        return Batch._make(None if field is None else local(field) for field in self)

    def chunk(self, count: int) -> list["Batch"]:
        """The batch in `count` parts."""
        fields = ([None] * count if field is None else field.chunk(count) for field in self)
        return [Batch._make(part) for part in zip(*fields, strict=True)]

    def views(self, *names: str) -> list[View]:
        """The Views of the named images ("real", "fake"), in this order; images that are None are left out."""
        fields = {"real": (self.real_labels, self.real_drawn), "fake": (self.labels, self.drawn)}
        found = {name: getattr(self, name) for name in names}
        return [View(images, *fields[name]) for name, images in found.items() if images is not None]


class Verdict(NamedTuple):
    """D's output for images: logits (N, 1), and the cross-entropy of their classes (0 without a classifier)."""

    logits: Tensor
    class_loss: Tensor | float = 0.0


@dataclass(frozen=True)
class Objective:
    """The losses of D and G, and how D's outputs are computed from a batch.

    d_loss(real_logits, fake_logits); g_loss(fake_logits), or g_loss(fake_logits, real_logits) if paired. regularizers:
    those of D with their weights. joint: one forward of D for real and fake images together, so one power iteration
    per update as in the paper's algorithm 1; batch norm in D needs separate forwards. accumulate: the number of equal
    parts in which a batch is computed; u and v move in the first part only, and batch norm uses each part's statistics.
    classifies: D also predicts the class (acgan); acgan_weight_D weighs the cross-entropy of real images in D's loss,
    acgan_weight_G that of samples in G's. augment: the AUGMENTATIONS applied to all images that D sees. averages: of
    D's logits, for LeCam's penalty. every: penalties on D's gradient are added in one of `every` updates of D.
    """

    d_loss: Callable[..., Tensor]
    g_loss: Callable[..., Tensor]
    regularizers: tuple[tuple[Regularizer, float], ...] = ()
    joint: bool = True
    accumulate: int = 1
    classifies: bool = False
    acgan_weight_D: float = 1.0
    acgan_weight_G: float = 1.0
    augment: tuple[str, ...] = ()
    paired: bool = False
    averages: LogitAverages | None = None
    every: int = 1

    @classmethod
    def of(cls, config: Config) -> "Objective":
        """The objective of a run's configuration."""
        chosen = [REGULARIZERS[name] for name in config.regularizer if name != "none"]
        weights = config.regularizer_weight or [regularizer.default_weight for regularizer in chosen]
        return cls(
            *LOSSES[config.loss],
            tuple(zip(chosen, weights, strict=True)),
            joint="batch" not in config.d_norm,
            accumulate=config.accumulate,
            classifies=config.conditional == "acgan",
            acgan_weight_D=config.acgan_weight_D,
            acgan_weight_G=config.acgan_weight_G,
            augment=tuple(name for name in config.augment if name != "none"),
            paired=config.loss in PAIRED,
            averages=LogitAverages(config.lecam_start) if "lecam" in config.regularizer else None,
            every=config.regularizer_every,
        )

    def at(self, update: int) -> "Objective":
        """The objective of D's update number `update`, counted from 0, under lazy regularization.

        Every `every`-th update has the penalties on D's gradient, weighted `every` times, as in StyleGAN2 (Karras et
        al. 2020, arXiv 1912.04958). StyleGAN2 gives them an Adam step of their own and lowers its learning rate and
        betas to make up for that. Here they are part of the loss's own step, and neither changes.
        """
        factor = 0 if update % self.every else self.every
        lazy = ((found, weight * factor if found.on_gradient else weight) for found, weight in self.regularizers)
        return replace(self, regularizers=tuple((found, weight) for found, weight in lazy if weight))

    def judge(self, D: nn.Module, views: Sequence[View], precision: Precision = FULL) -> list[Verdict]:
        """D's verdict on each view: by one forward of all views if joint, otherwise by one forward each."""
        seen = [v if v.drawn is None else v._replace(images=augment(v.images, self.augment, v.drawn)) for v in views]
        forwards = [seen] if self.joint else [[view] for view in seen]
        return [verdict for together in forwards for verdict in self._verdicts(D, together, precision)]

    def _verdicts(self, D: nn.Module, views: Sequence[View], precision: Precision) -> Iterator[Verdict]:
        """The verdicts of one forward."""
        images = torch.cat([view.images for view in views])
        labels = None if views[0].labels is None else torch.cat([view.labels for view in views])
        outputs = precision.call(D, images, labels, **({"classify": True} if self.classifies else {}))
        sizes = [len(view.images) for view in views]
        parts = zip(*(output.split(sizes) for output in (outputs if self.classifies else [outputs])))
        for view, (logits, *class_logits) in zip(views, parts):
            # AC-GAN's second loss (Odena et al. 2017, eq. 3), of labels or of weights of the classes (N, K).
            yield Verdict(logits, *(F.cross_entropy(found, view.labels) for found in class_logits))

    def _logits(self, D: nn.Module, view: View, images: Tensor) -> Tensor:
        """D's logits for other images with the labels and augmentation of a view."""
        return self.judge(D, [view._replace(images=images)])[0].logits

    def penalty(self, D: nn.Module, batch: Batch, *logits: Tensor, exact: bool = True) -> Tensor | float:
        """The term that the regularizers add to D's loss, in full precision. logits: of real images and of samples.

        Augmentation counts as part of D: the gradient is taken with respect to the image before it, as in R1 of
        StyleGAN2-ADA (Karras et al. 2020) and R3GAN. Gradient penalties on images other than real ones use the
        augmentation of the real image at the same position; finite differences use that of the loss. exact: the logits
        have full precision, so finite differences may start from them.
        """
        penalties = [(found.penalty, weight) for found, weight in self.regularizers if found.penalty]
        near = [(found.near, weight) for found, weight in self.regularizers if found.near]
        known = dict(zip(("real", "fake"), logits)) if exact else {}
        total: Tensor | float = 0.0
        for found, weight in self.regularizers:
            if found.of_logits and self.averages and self.averages.active:
                total = total + weight * found.of_logits(*logits, *self.averages.values)
        if not penalties and not near:
            return total
        seen = (batch.real, batch.fake, batch.alpha, batch.real_labels, batch.labels)
        augmented = D if batch.real_drawn is None else Augmented(D, self.augment, batch.real_drawn)
        with iteration(D, False):  # these forwards belong to the same update
            for side, weight in near:
                (view,) = batch.views(side)
                at = partial(self._logits, D, view)
                total = total + weight * finite_difference(at, view.images, batch.noise, known.get(side))
            return total + sum(weight * penalty(augmented, *seen) for penalty, weight in penalties)

    def project(self, D: nn.Module) -> None:
        """Apply the regularizers' projections to D's weights after an update, such as weight clipping."""
        for regularizer, weight in self.regularizers:
            if regularizer.project:
                regularizer.project(D, weight)
