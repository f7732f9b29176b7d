"""Scoring: one pass over the samples, every protocol from the same features, and all that a score depends on."""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from datasets import Images, first_of, has_test_split, load_split
from settings.config import Config
from utils.distributed import broadcast, rank, rank_zero_first
from utils.errors import UserError, explaining_memory
from utils.precision import without_tf32
from utils.threads import all_cores

from . import depends
from .inputs import features
from .inputs.features import Say
from .inputs.reference import Reference, load_reference
from .inputs.sampling import Given, Source, extract, images_at
from .scores import certainty, conditional, diagnostics, held_out, manifold, metrics, modes
from .scores.registry import SCORES


class Evaluator:
    """Scores samples against one data set: the extractor and the real images' features, made once and cached.

    Of config only what concerns data and extractor is read; train is its training split. reference: a folder whose
    images stand in the data set's place as the real ones, while a classifier stays the data set's; Inception needs no
    train then. UserError where weights or data are missing; a classifier is trained when the first score needs it.
    """

    extractor: features.Extractor | modes.StackedClassifier
    classifier: features.Classifier | modes.StackedClassifier | None = None

    def __init__(
        self, config: Config, train: Images | None, device: torch.device, say: Say = print, reference: str | None = None
    ) -> None:
        self.device, self.say, self.folder = device, say, reference
        self.data, self.train = config, train  # the classifier's, also where a folder is the reference
        self.frequencies, self.loaded = modes.frequencies(config, train), False
        self.scores_itself = features.extractor_name(config) == "classifier"
        if self.scores_itself:
            features.check_labels(config, train)
        else:
            with rank_zero_first():
                self.extractor = features.load_extractor(config, train, device, say)
        self.classes = train.classes if train else ()
        self.config = dataclasses.replace(config, dataset="folder", data_dir=reference) if reference else config
        self.splits: dict[str, Images | None] = {"train": load_split(self.config) if reference else train}
        if has_test_split(self.config):
            self.splits["test"] = None  # loaded when it is asked for
        self.references: dict[str, Reference | None] = {}
        self.sha256 = functools.cache(lambda split: self.images(split).sha256())

    def load(self) -> None:
        """Load the extractor and the classifier of class shares, or train it now; on every rank at once."""
        if self.loaded:
            return
        config, train = self.data, self.train
        with rank_zero_first(), torch.inference_mode(False):  # a classifier may have to be trained
            if self.scores_itself or (train and config.dataset != "folder" and features.is_labelled(train)):
                self.classifier = modes.load_classifier(config, train, self.device, self.say)
        if self.scores_itself and self.classifier:
            self.extractor = self.classifier
        if broadcast(self.extractor.sha256) != self.extractor.sha256:
            raise UserError(f"the ranks have different weights of the {self.extractor.name}: share one data_dir")
        self.loaded = True

    def images(self, split: str) -> Images:
        """The real images of a split, as Images. UserError where the data have no such split or too few images."""
        if split not in self.splits:
            raise UserError(
                f"{self.config.data_dir} has no test images: a folder's splits are its subfolders train and test"
            )
        found = self.splits[split]
        if found is None:
            with rank_zero_first():
                found = self.splits[split] = load_split(self.config, split)
        if len(found.images) < metrics.MIN_IMAGES:
            raise UserError(f"scores need {metrics.MIN_IMAGES} real images or more; the {split} split has fewer")
        return found

    def reference(self, split: str) -> Reference | None:
        """The Reference of a split, from memory, its cache or made now; None on ranks other than 0."""
        if split not in self.references:
            self.load()
            images = self.images(split)
            self.references[split] = load_reference(self.config, split, images, self.extractor, self.device, self.say)
        return self.references[split]

    def check(self, protocols: Iterable[str]) -> None:
        """Raise UserError where a protocol's real images cannot be had."""
        for name in protocols:
            self.images(metrics.PROTOCOLS[name].split)

    @torch.inference_mode()
    @without_tf32()
    def evaluate(
        self,
        source: Source,
        facts: dict[str, Any],
        protocols: Iterable[str],
        num_samples: int | None = None,
        quick: bool = False,
        kid: bool = True,
        neighbours: bool = True,
        bootstrap: int = 0,
        infinity: bool = False,
    ) -> tuple[Any, Any]:
        """Score a source's samples under each protocol.

        facts: what the protocol says of where they come from. num_samples: see metrics.sample_counts(). quick: leave
        out the diagnostics, which no curve needs. kid, neighbours: whether KID is wanted, and precision, recall,
        density and coverage. bootstrap: resamples for the intervals of FID and KID; infinity: FID infinity too. Returns
        (results, nearest): a dict for each protocol as evaluation.json has it, and what plots.plot_neighbours() takes,
        or None; on ranks other than 0, (None, None).
        """
        self.load()
        counts = self.counts(protocols, num_samples, source.count)
        drawn = max(max(pair) for pair in counts.values())
        looked = modes.wanted(self.frequencies, source, drawn)
        source, facts = depends.in_order(source, facts, counts, looked)
        references: dict[str, Any] = {name: self.reference(metrics.PROTOCOLS[name].split) for name in counts}
        if infinity and rank() == 0:
            for name, reference in references.items():
                certainty.check_infinity(counts[name][0], reference.features.size(1))
        compared = [] if quick else [None if self.folder else facts.get("num_images"), *self.compared()]
        held = {} if quick else {name: {"held_out": self.held_out(name, pair[0])} for name, pair in counts.items()}
        for known in filter(None, self.references.values()):
            known.logits = None  # as large as a part of the features, and of no more use
        networks = list(dict.fromkeys(filter(None, (self.extractor, self.classifier))))
        with explaining_memory(f"the features of {looked:,} samples", "choose a smaller --num_samples"):
            found = extract(networks, source, looked, self.device, "samples")
        if found is None:
            return None, None
        if not all(part.isfinite().all() for part in found):
            raise UserError("the samples' features are not finite: the generator's weights are broken")

        (samples, logits), answers = found[:2], found[-1]
        with all_cores():
            shared, nearest = ({}, None) if quick else self.diagnose(source, samples[:drawn], *compared)
            asked = conditional.asked_of(source, drawn)
            shared |= self.told_apart(answers, drawn, asked)
            radii = functools.cache(lambda count: manifold.radii(samples[:count], "neighbours of samples"))
            results = []
            for name, (num_samples, is_samples) in counts.items():
                protocol = metrics.PROTOCOLS[name]
                parts = samples[:num_samples], references[name], radii if neighbours else None
                result: Any = {"inception_score": metrics.inception_score(logits[:is_samples], protocol.shuffle)}
                result |= scores(*parts, kid, bootstrap, infinity) | held.get(name, {}) | shared
                if not quick:
                    result |= conditional.within(asked, parts[0], references[name], self.images(protocol.split))
                    result["warnings"] = diagnostics.warnings(result)
                result["protocol"] = depends.protocol(self, name, counts[name]) | facts
                results.append(result)
        return results, nearest

    def told_apart(self, answers: Tensor, drawn: int, asked: conditional.Asked | None) -> dict[str, Any]:
        """What the classifier, if there is one, says of samples by its logits (N, k): of their classes, or modes."""
        found = {}
        if self.frequencies is not None:
            found = modes.count(answers, self.frequencies)
        elif self.classifier:
            found = diagnostics.class_shares(answers[:drawn], self.classifier, self.classes)
        return found | conditional.accuracy(asked, answers[:drawn], self.classifier, self.classes)

    def counts(
        self, protocols: Iterable[str], num_samples: int | None, available: int | None
    ) -> dict[str, tuple[int, int]]:
        """What metrics.sample_counts() gives for each protocol. UserError for too few samples or real images."""
        found = {}
        for name in protocols:
            num_real = len(self.images(metrics.PROTOCOLS[name].split).images)
            found[name] = metrics.sample_counts(name, num_real, num_samples, available)
        if available is not None and available < metrics.MIN_IMAGES:
            raise UserError(f"scores need {metrics.MIN_IMAGES} samples or more, and there are {available}")
        return found

    def compared(self) -> list[Any]:
        """What samples are compared with: the References of training and, where there are enough, of test images."""
        if "test" in self.splits:
            try:
                self.images("test")
            except UserError as error:
                self.say(f"samples are not compared with test images: {error}")
                del self.splits["test"]
        return [self.reference(split) for split in self.splits]

    def held_out(self, name: str, num_samples: int) -> dict[str, Any] | None:
        """What real images get under a protocol that takes num_samples samples: see held_out.py.

        Where there are none, a dict with the reason; None on ranks other than 0.
        """
        split = metrics.PROTOCOLS[name].split
        other = held_out.STAND_INS[split]
        what = f"{'training' if other == 'train' else other} images"
        try:
            images = self.images(other)
        except UserError as error:
            return {"what": what, "reason": str(error)}
        chosen = held_out.chosen(other, len(images.images), num_samples)
        reference, taken = self.reference(split), self.references.get(other)

        def take() -> list[Tensor] | None:
            answers = taken.logits if taken else None
            if broadcast(answers is not None):
                return [taken.features[chosen], answers[chosen]] if taken and answers is not None else None
            return extract([self.extractor], Given(images.images, chosen), len(chosen), self.device, what)

        facts = {
            "what": what,
            "num": len(chosen),
            "data_sha256": self.sha256(other),
            "scores": [name for name, score in SCORES.items() if score.by],
            "kid_subsets": metrics.KID_SUBSETS,
            "density_coverage_neighbours": manifold.FARTHEST,
        }
        return held_out.load_or_score(reference, facts, take, self.frequencies if self.scores_itself else None)

    def diagnose(
        self, source: Source, samples: Tensor, count: int | None, training: Reference, unseen: Reference | None = None
    ) -> tuple[dict[str, Any], tuple[Tensor, ...]]:
        """Compare the samples' features with the References of training and unseen images.

        count: the training images that the generator saw, the first_of() all, where fewer. Returns what a result holds
        of it, and what plots.plot_neighbours() takes.
        """
        real = "reference" if self.folder else "training"
        if count is not None and count > len(training.features):  # other data than then, which is said elsewhere
            count = None
        seen = slice(None) if count is None else first_of(len(training.features), count)
        parts = training.features[seen], unseen.features if unseen else None
        facts = {"queries": diagnostics.QUERIES, "unseen_sha256": self.sha256("test") if unseen else None}
        facts |= {} if count is None else {"num_images": count}
        make, what = functools.partial(diagnostics.unseen_distances, *parts), "the distances of unseen images are"
        apart = training.kept("unseen", facts, make, what)
        memorisation, found = diagnostics.memorisation(samples, *parts, real, apart)
        diversity = diagnostics.diversity(samples, training.features)
        shown = torch.stack(list(images_at(source, found.samples.tolist())))
        pictures = shown, self.images("train").images[seen][found.training]
        return {"memorisation": memorisation, "diversity": diversity}, (*pictures, found.distances)


def scores(
    samples: Tensor,
    reference: Reference,
    radii: Callable[[int], Tensor] | None,
    kid: bool,
    bootstrap: int,
    infinity: bool,
) -> dict[str, Any]:
    """The scores of samples' features (N, d) against a Reference, under their names in evaluation.json.

    radii: gives what manifold.radii() does for the first N samples; without it, what manifold gives is left out.
    """
    found = metrics.against(samples, reference, left_out=() if kid else ("kid",))
    if radii:
        found |= metrics.neighbour_scores(samples, reference, radii(len(samples)))
    if bootstrap and kid:
        found["fid_interval"] = certainty.fid_interval(found["fid"], samples, reference, bootstrap)
        found["kid_interval"] = certainty.kid_interval(found["kid"]["mean"], samples, reference, bootstrap)
    if infinity:
        found["fid_infinity"] = certainty.fid_infinity(samples, reference)
    return found
