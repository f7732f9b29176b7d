"""What the two updates optimise: the losses and regularizers of a configuration, and the batches that they take."""

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
    """Images that D is to judge: (N, C, H, W), the labels (N,) of conditional networks, and how they are augmented."""

    images: Tensor
    labels: Any = None
    drawn: Tensor | None = None


class Batch(NamedTuple):
    """What an update takes, all random numbers in it drawn; None where it needs none of that.

    z: latents (N, z_dim). real: images (N, C, H, W) in [-1, 1]. alpha (N, 1, 1, 1) in [0, 1]: where the gradient
    penalty looks, between real and fake. fake: samples of these z, which D's update draws itself. labels: the classes
    of z, and so of fake, and real_labels those of real: (N,) int64, of conditional networks. drawn and real_drawn: how
    fake and real are augmented, of models.augmentation.draw(). noise (N, C, H, W): where finite differences look.
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
        """The batch in so many parts."""
        fields = ([None] * count if field is None else field.chunk(count) for field in self)
        return [Batch._make(part) for part in zip(*fields, strict=True)]

    def views(self, *names: str) -> list[View]:
        """Those of its "real" and its "fake" images, in this order, as far as it has them."""
        fields = {"real": (self.real_labels, self.real_drawn), "fake": (self.labels, self.drawn)}
        found = {name: getattr(self, name) for name in names}
        return [View(images, *fields[name]) for name, images in found.items() if images is not None]


class Verdict(NamedTuple):
    """What D says of images: logits (N, 1), and the cross-entropy of their classes, 0 where it does not classify."""

    logits: Tensor
    class_loss: Tensor | float = 0.0


@dataclass(frozen=True)
class Objective:
    """The losses of D and of G, and how D judges images.

    d_loss(real_logits, fake_logits) and g_loss(fake_logits), or g_loss(fake_logits, real_logits) where G's batch has
    real images. regularizers: of D, each with its weight. joint: one forward of D for real and fake images, so one
    power iteration an update as in the paper's algorithm 1; batch norm in D needs one for each. accumulate: parts, of
    one size, in which a batch is computed; u and v move in the first alone, and batch norm takes each part's own
    statistics. classifies: D tells the classes apart, as acgan's does; acgan_weight_D and acgan_weight_G are what the
    cross-entropy of real images counts in D's loss, and that of samples in G's. augment: names of AUGMENTATIONS,
    through which D sees all images. paired: g_loss needs real images. averages: of D's logits, for LeCam's penalty.
    every: of so many updates of D, one has the penalties on its gradient.
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
        """That of a run."""
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
        """That of D's update number `update`, from 0: each `every`-th has the penalties on D's gradient, as many times.

        Lazy regularization, as in StyleGAN2 (Karras et al. 2020, arXiv 1912.04958). There the penalties have a step of
        Adam to themselves, for which its rate and betas are lowered. Here they are in the loss's own, and these stay.
        """
        factor = 0 if update % self.every else self.every
        lazy = ((found, weight * factor if found.on_gradient else weight) for found, weight in self.regularizers)
        return replace(self, regularizers=tuple((found, weight) for found, weight in lazy if weight))

    def judge(self, D: nn.Module, views: Sequence[View], precision: Precision = FULL) -> list[Verdict]:
        """D's verdict on each of these views: by one forward of all where that is joint, and else by one of each."""
        seen = [v if v.drawn is None else v._replace(images=augment(v.images, self.augment, v.drawn)) for v in views]
        forwards = [seen] if self.joint else [[view] for view in seen]
        return [verdict for together in forwards for verdict in self._verdicts(D, together, precision)]

    def _verdicts(self, D: nn.Module, views: Sequence[View], precision: Precision) -> Iterator[Verdict]:
        """Those of one forward."""
        images = torch.cat([view.images for view in views])
        labels = None if views[0].labels is None else torch.cat([view.labels for view in views])
        outputs = precision.call(D, images, labels, **({"classify": True} if self.classifies else {}))
        sizes = [len(view.images) for view in views]
        parts = zip(*(output.split(sizes) for output in (outputs if self.classifies else [outputs])))
        for view, (logits, *class_logits) in zip(views, parts):
            # AC-GAN's second loss (Odena et al. 2017, eq. 3), of labels or of weights of the classes (N, K).
            yield Verdict(logits, *(F.cross_entropy(found, view.labels) for found in class_logits))

    def _logits(self, D: nn.Module, view: View, images: Tensor) -> Tensor:
        """D's logits on other images in a view."""
        return self.judge(D, [view._replace(images=images)])[0].logits

    def penalty(self, D: nn.Module, batch: Batch, *logits: Tensor, exact: bool = True) -> Tensor | float:
        """What the regularizers add to D's loss, in full precision; logits: those of the real images, of the samples.

        Augmentation is part of D then: the gradient is that with respect to the image before it, as StyleGAN2-ADA's R1
        (Karras et al. 2020) and R3GAN's are, and so of all that the loss goes through. Penalties on images other than
        the real ones augment each as the real one in its place, finite differences as the loss does. exact: the logits
        are of full precision, and so finite differences may start from them.
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
        with iteration(D, False):  # their forwards are of the same update
            for side, weight in near:
                (view,) = batch.views(side)
                at = partial(self._logits, D, view)
                total = total + weight * finite_difference(at, view.images, batch.noise, known.get(side))
            return total + sum(weight * penalty(augmented, *seen) for penalty, weight in penalties)

    def project(self, D: nn.Module) -> None:
        """What the regularizers do to D's weights after an update."""
        for regularizer, weight in self.regularizers:
            if regularizer.project:
                regularizer.project(D, weight)
