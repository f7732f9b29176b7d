"""The Evaluator scores samples under every protocol in one pass, and records all that a score depends on."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from datasets import Images, first_of
from settings.config import Config
from utils.distributed import broadcast, rank_zero_first
from utils.errors import UserError, explaining_memory
from utils.precision import without_tf32
from utils.threads import all_cores

from . import protocol
from .held_out import scores, scores_of_real
from .inputs import features
from .inputs.features import AnyClassifier, Extractor, Say
from .inputs.reference import MIN_IMAGES, Real, Reference
from .inputs.sampling import Source, extract, images_at, in_order
from .protocol import PROTOCOLS, Plan
from .scores import certainty, conditional, diagnostics, manifold, metrics, modes


class Wanted(NamedTuple):
    """The results to compute, in addition to the Inception Score and the registry's functions.

    diagnostics: warnings, intra-FID and the scores of real images, which the curves of a run do not need. kid: KID, a
    function of the registry that can be left out. neighbours: precision, recall, density and coverage. bootstrap: the
    number of resamples for the intervals of FID and KID. infinity: FID infinity.
    """

    diagnostics: bool = True
    kid: bool = True
    neighbours: bool = True
    bootstrap: int = 0
    infinity: bool = False


USUAL = Wanted()


class Seen(NamedTuple):
    """The networks' outputs for samples: features (N, d), logits (N, k) for the Inception Score, and answers
    (N, classes) of the classifier. If the extractor is the only network, the last two are the same."""

    features: Tensor
    logits: Tensor
    answers: Tensor


class Evaluator:
    """Scores samples against one data set. Extractor and real features are made once and cached.

    Only the settings about data and extractor are read from config. train: its training split, which Inception does not
    need with a reference: a folder whose images replace the real ones; a classifier is still the data set's own. It is
    trained when the first score needs it. Raises UserError if weights or data are missing.
    """

    extractor: Extractor
    classifier: AnyClassifier | None = None

    def __init__(
        self, config: Config, train: Images | None, device: torch.device, say: Say = print, reference: str | None = None
    ) -> None:
        self.config, self.train, self.device, self.say = config, train, device, say
        self.frequencies, self.loaded = modes.frequencies(config, train), False
        self.scores_itself = features.extractor_name(config) == "classifier"
        if self.scores_itself:
            features.check_labels(config, train)
        else:
            with rank_zero_first():
                self.extractor = features.load_inception(config, device, say)
        self.classes = train.classes if train else ()
        self.real = Real(config, train, device, say, reference)

    def load(self) -> None:
        """Load the extractor, and load or train the classifier of the samples' classes. Call this on every rank."""
        if self.loaded:
            return
        config, train = self.config, self.train
        with rank_zero_first(), torch.inference_mode(False):  # a classifier may have to be trained
            if self.scores_itself or (train and config.dataset != "folder" and features.is_labelled(train)):
                self.classifier = features.load_classifier(config, train, self.device, self.say)
        if self.scores_itself and self.classifier:
            self.extractor = self.classifier
        if broadcast(self.extractor.sha256) != self.extractor.sha256:
            raise UserError(f"the ranks have different weights of the {self.extractor.name}: share one --data_dir")
        self.loaded = True

    def reference(self, split: str) -> Reference | None:
        """The Reference of a split of real images, or None on ranks other than 0."""
        self.load()
        return self.real.reference(split, self.extractor)

    @torch.inference_mode()
    @without_tf32()
    def evaluate(
        self,
        source: Source,
        facts: dict[str, Any],
        protocols: Iterable[str],
        num_samples: int | None = None,
        wanted: Wanted = USUAL,
    ) -> tuple[Any, Any]:
        """Score a source's samples under each protocol.

        facts: about the source, for the record. num_samples: see protocol.plan(). Returns (results, nearest): a dict
        for each protocol as in evaluation.json, and the arguments of plots.plot_neighbours() or None. On other ranks
        than 0, returns (None, None).
        """
        self.load()
        plans = self.plans(protocols, num_samples, source.count)
        counts = [count for plan in plans for count in (plan.num_samples, plan.is_samples)]
        drawn = max(counts)
        source, order = in_order(source, min(counts), in_parts=not all(plan.full.shuffle for plan in plans))
        of_real = self.look_at_real(plans, wanted)
        seen = self.look_at(source, modes.wanted(self.frequencies, source, drawn))
        if seen is None:
            return None, None

        asked, nearest = conditional.asked_of(source, drawn), None
        with all_cores():
            shared: dict[str, Any] = {}
            if wanted.diagnostics:
                shared, nearest = self.diagnose(source, seen.features[:drawn], facts.get("num_images"))
            shared |= self.told(seen.answers, drawn, asked, facts.get("num_images"))
            radii = functools.cache(lambda count: manifold.radii(seen.features[:count], "neighbours of samples"))
            results = []
            for plan in plans:
                result = self.score(plan, seen, radii, wanted) | of_real.get(plan, {}) | shared
                result |= self.as_many(plan, seen, result.get("held_out", {}).get("num", plan.num_samples))
                if wanted.diagnostics:
                    result |= conditional.within(asked, *self.compared(plan, seen), self.real.images(plan.full.split))
                    result["warnings"] = diagnostics.warnings(result)
                depends = protocol.facts(plan, self.real, self.extractor, self.classifier, self.frequencies)
                results.append(result | {"protocol": depends | facts | order})
        return results, nearest

    def plans(
        self, protocols: Iterable[str], num_samples: int | None = None, available: int | None = None
    ) -> list[Plan]:
        """The Plan of each protocol. Raises UserError if there are too few samples or real images."""
        names = dict.fromkeys(protocols)
        found = [protocol.plan(name, self.real.count(PROTOCOLS[name].split), num_samples, available) for name in names]
        if available is not None and available < MIN_IMAGES:
            raise UserError(f"scores need at least {MIN_IMAGES} samples, but there are {available}")
        return found

    def look_at_real(self, plans: Iterable[Plan], wanted: Wanted) -> dict[Plan, dict[str, Any]]:
        """Load the References. Returns the entry of a result about held-out real images for each Plan."""
        for plan in plans:
            reference = self.reference(plan.full.split)
            if wanted.infinity and reference:
                certainty.check_infinity(plan.num_samples, reference.features.size(1))
        if not wanted.diagnostics:
            return {}
        self.real.compared(self.extractor)
        known = self.frequencies if self.scores_itself else None
        return {plan: {"held_out": scores_of_real(plan, self.real, self.extractor, known)} for plan in plans}

    def look_at(self, source: Source, count: int) -> Seen | None:
        """Run the networks on a source's first `count` samples. Returns None on ranks other than 0."""
        networks = list(dict.fromkeys(filter(None, (self.extractor, self.classifier))))
        with explaining_memory(f"the features of {count:,} samples", "choose a smaller --num_samples"):
            found = extract(networks, source, count, self.device, "samples")
        if found is None:
            return None
        if not all(part.isfinite().all() for part in found):
            raise UserError("the samples' features are NaN or infinite: the generator's weights are broken")
        return Seen(found[0], found[1], found[-1])

    def compared(self, plan: Plan, seen: Seen) -> tuple[Tensor, Reference]:
        """The samples' features (N, d) and the Reference that a Plan compares. Only for rank 0."""
        reference = self.reference(plan.full.split)
        assert reference is not None
        return seen.features[: plan.num_samples], reference

    def score(self, plan: Plan, seen: Seen, radii: Callable[[int], Tensor], wanted: Wanted) -> dict[str, Any]:
        """Score samples under a Plan: {name in evaluation.json: score}.

        radii: a function of N that returns manifold.radii() of the first N samples.
        """
        samples, reference = self.compared(plan, seen)
        found: dict[str, Any]
        found = {"inception_score": metrics.inception_score(seen.logits[: plan.is_samples], plan.full.shuffle)}
        found |= metrics.against(samples, reference, left_out=() if wanted.kid else ("kid",))
        if wanted.neighbours:
            found |= metrics.neighbour_scores(samples, reference, radii(plan.num_samples))
        if wanted.bootstrap and wanted.kid:
            found["fid_interval"] = certainty.fid_interval(found["fid"], samples, reference, wanted.bootstrap)
            found["kid_interval"] = certainty.kid_interval(found["kid"]["mean"], samples, reference, wanted.bootstrap)
        if wanted.infinity:
            found["fid_infinity"] = certainty.fid_infinity(samples, reference)
        return found

    def as_many(self, plan: Plan, seen: Seen, count: int) -> dict[str, Any]:
        """Score only `count` samples, as many as held-out images, if these are fewer. FID depends on the number."""
        if count >= plan.num_samples:
            return {}
        samples, reference = self.compared(plan, seen)
        chosen = first_of(plan.num_samples, count)  # in random order: given samples may be sorted
        return {"as_many": {"num": count} | scores(samples[chosen], seen.logits[chosen], reference, None)}

    def told(self, answers: Tensor, drawn: int, asked: conditional.Asked | None, count: int | None) -> dict[str, Any]:
        """Count modes or class shares, and accuracy, by the classifier's logits (N, k), if any."""
        found = {}
        if self.frequencies is not None:
            found = modes.count(answers, self.frequencies)
        elif self.classifier and self.train:
            labels = self.train.labels[self.trained_on(len(self.train.labels), count)]
            found = diagnostics.class_shares(answers[:drawn], labels, self.classes)
        return found | conditional.accuracy(asked, answers[:drawn], self.classifier, self.classes)

    def trained_on(self, total: int, count: int | None) -> Tensor | slice:
        """Which of `total` training images a generator saw. All of them, if its data were others."""
        return first_of(total, count) if count and count <= total and not self.real.folder else slice(None)

    def diagnose(self, source: Source, samples: Tensor, count: int | None) -> tuple[dict[str, Any], tuple[Tensor, ...]]:
        """Compare the samples' features with those of training images and unseen images, if any.

        count: the number of training images that the generator saw, if not all. Returns the entries of a result, and
        the arguments of plots.plot_neighbours().
        """
        training, *others = filter(None, self.real.compared(self.extractor))
        unseen = others[0] if others else None
        seen = self.trained_on(len(training.features), count)
        parts = training.features[seen], unseen.features if unseen else None
        facts = {"queries": diagnostics.QUERIES, "unseen_sha256": self.real.sha256("test") if unseen else None}
        facts |= {"num_images": count} if isinstance(seen, Tensor) else {}
        make, what = functools.partial(diagnostics.unseen_distances, *parts), "the distances of unseen images are"
        apart = training.once("unseen", facts, make, what)
        name = "reference images" if self.real.folder else "training images"
        names = name, "test images" if unseen else f"other {name}"
        memorisation, found = diagnostics.memorisation(samples, parts[0], apart, *names)
        diversity = diagnostics.diversity(samples, training.features)
        shown = torch.stack(list(images_at(source, found.samples.tolist())))
        pictures = shown, self.real.images("train").images[seen][found.training]
        return {"memorisation": memorisation, "diversity": diversity}, (*pictures, found.distances)
