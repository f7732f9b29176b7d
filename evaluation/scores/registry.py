"""The registry of scores: names, which values are better, and keys in a result. Everything that shows scores reads it.

To add a score, write a function of the samples' features (N, d) and a Reference, and name it in a line here. This file
does not import torch, so that `compare.py --help` is instant.
"""

import pkgutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

OWN = "_of_G"  # suffix for the scores of G itself, next to those of its moving average
# Values that can accompany a score: {suffix of the column: (suffix of the entry in a result, key in it)}.
BESIDE = {
    "std": ("", "std"),
    "low": ("_interval", "low"),
    "high": ("_interval", "high"),
    "infinity": ("_infinity", "value"),
}
NEARER = "nearer to a training image than an unseen one is"


@dataclass(frozen=True)
class Score:
    """A score and how to show it."""

    name: str  # in evaluation.json, stats.jsonl and each CSV
    label: str  # in lines and tables
    digits: int  # after the decimal point
    better: str | float  # "more", "less", or the value that is best
    title: str = ""  # a longer label
    log: bool = False  # drawn on a logarithmic axis, and averaged over seeds as a geometric mean
    of: str = "images"  # also of real ones; or "modes", "diagnosis" by training images, or conditional "classes"
    always: bool = False  # has a column in a table even if no result has it
    panel: str = ""  # of curves that it shares, if it has no panel of its own
    at: tuple[str, ...] = ()  # its keys in a result, if not just its name
    beside: tuple[str, ...] = ()  # the keys of BESIDE that a result may have
    by: str = ""  # "MODULE:FUNCTION" of evaluation.scores that computes it, unless it comes with others

    @property
    def heading(self) -> str:
        return self.title or self.label

    @property
    def direction(self) -> str:
        """Which values are better, in words."""
        return f"{self.better} is better" if isinstance(self.better, str) else f"{self.better:g} is best"

    @property
    def pointed(self) -> str:
        """The label with an arrow to the better values, for tables."""
        return f"{self.label} " + ({"more": "↑", "less": "↓"}.get(str(self.better)) or f"→ {self.better:g}")

    def badness(self, value: float) -> float:
        """A key to sort values by: the lowest is best."""
        if isinstance(self.better, str):
            return -value if self.better == "more" else value
        return abs(value - self.better)

    def value(self, scores: Mapping[str, Any]) -> float | None:
        """The score in a result or its entry of real images: a number (a mean, or a list's length) or None."""
        found = entry(scores, *self.at or (self.name,))
        if isinstance(found, Mapping):
            found = found.get("mean")
        return len(found) if isinstance(found, list) else found

    def std(self, scores: Mapping[str, Any]) -> float | None:
        """Its standard deviation over splits or subsets, or None."""
        return entry(scores, self.name, "std")

    def bar(self, result: Mapping[str, Any]) -> float:
        """Half the length of its error bar: std over resamples, else over splits or subsets, else 0."""
        return entry(result, f"{self.name}_interval", "std") or self.std(result) or 0.0

    def columns(self, scores: Mapping[str, Any], ends: Collection[str] = BESIDE) -> dict[str, Any]:
        """{column of a CSV: value or None} of the score and of those accompanying values that `ends` names."""
        places = {f"{self.name}_{end}": BESIDE[end] for end in self.beside if end in ends}
        beside = {column: entry(scores, self.name + suffix, key) for column, (suffix, key) in places.items()}
        return {self.name: self.value(scores), **beside}

    def function(self) -> Callable[..., Any]:
        """The function that computes it: (features (N, d), Reference) -> the entry in a result."""
        return pkgutil.resolve_name(f"evaluation.scores.{self.by}")


def entry(scores: Any, *keys: str) -> Any:
    """scores[key][key]..., or None if a key is missing."""
    for key in keys:
        scores = scores.get(key) if isinstance(scores, Mapping) else None
    return scores


SCORES = {
    score.name: score
    for score in (
        Score("inception_score", "IS", 2, "more", title="Inception Score", always=True, beside=("std",)),
        Score("fid", "FID", 2, "less", log=True, always=True, beside=("low", "high", "infinity"), by="metrics:fid"),
        Score("kid", "KID", 4, "less", always=True, beside=("std", "low", "high"), by="metrics:kid"),
        Score("precision", "precision", 2, "more", always=True, panel="precision and recall"),
        Score("recall", "recall", 2, "more", always=True, panel="precision and recall"),
        Score("density", "density", 2, "more", panel="density and coverage"),
        Score("coverage", "coverage", 2, "more", panel="density and coverage"),
        Score("modes", "modes", 0, "more", title="modes found", of="modes", at=("modes", "found")),
        Score("modes_kl", "KL of modes", 3, "less", title="KL of the modes", log=True, of="modes", at=("modes", "kl")),
        Score("classes_missing", "classes missing", 0, "less", of="diagnosis"),
        Score("nearer", "nearer", 2, 0.5, title=NEARER, of="diagnosis", at=("memorisation", "nearer")),
        Score("class_accuracy", "class accuracy", 3, "more", of="classes"),
        Score("intra_fid", "intra-FID", 2, "less", of="classes"),
    )
}


def scores_of(*kinds: str) -> dict[str, Score]:
    """The scores of these kinds, kind by kind: {name: Score}."""
    return {name: score for kind in kinds for name, score in SCORES.items() if score.of == kind}


def curves(*names: str) -> dict[str, tuple[dict[str, str], bool]]:
    """The plots of these scores over training: {title: ({statistic: label of its line}, whether logarithmic)}."""
    found: dict[str, tuple[dict[str, str], bool]] = {}
    for score in map(SCORES.__getitem__, names):
        lines, _ = found.setdefault(f"{score.panel or score.heading} ({score.direction})", ({}, score.log))
        own = f"G's own {score.label}" if score.panel else "G itself"
        lines |= {score.name: score.label, score.name + OWN: own}
    return found
