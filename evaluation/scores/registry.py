"""Every score: what it is called, which values are better, and where a result has it. All that shows scores reads this.

A new score is a function of the samples' features (N, d) and a Reference, and a line here that names it. This file
imports no torch, so that `compare.py --help` is instant.
"""

import pkgutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

OWN = "_of_G"  # behind the names of the scores of G itself, where those of its moving average stand beside them
# Of what may stand beside a score: {end of its column: (end of its entry in a result, the key there)}.
BESIDE = {
    "std": ("", "std"),
    "low": ("_interval", "low"),
    "high": ("_interval", "high"),
    "infinity": ("_infinity", "value"),
}
NEARER = "nearer to a training image than an unseen one is"


@dataclass(frozen=True)
class Score:
    """A score, and how it is shown."""

    name: str  # in evaluation.json, stats.jsonl and each CSV
    label: str  # in lines and tables
    digits: int  # after the decimal point
    better: str | float  # "more", "less", or the value that is best
    title: str = ""  # where there is room for more than the label
    log: bool = False  # drawn on a logarithmic axis, and averaged over seeds as a geometric mean
    of: str = "images"  # real ones too; or "modes", "diagnosis" beside training images, or conditional "classes"
    always: bool = False  # has its column in a table even if no result has it
    panel: str = ""  # the curves that it is drawn among, if it has no panel of its own
    at: tuple[str, ...] = ()  # its keys in a result, if not its name alone
    beside: tuple[str, ...] = ()  # those of BESIDE that a result may have too
    by: str = ""  # "MODULE:FUNCTION" of evaluation.scores that computes it; without one it comes with others

    @property
    def heading(self) -> str:
        return self.title or self.label

    @property
    def direction(self) -> str:
        """Which values are better, in words."""
        return f"{self.better} is better" if isinstance(self.better, str) else f"{self.better:g} is best"

    @property
    def pointed(self) -> str:
        """The label with an arrow to what is better, for tables."""
        return f"{self.label} " + ({"more": "↑", "less": "↓"}.get(str(self.better)) or f"→ {self.better:g}")

    def badness(self, value: float) -> float:
        """What orders values: the least is best."""
        if isinstance(self.better, str):
            return -value if self.better == "more" else value
        return abs(value - self.better)

    def value(self, scores: Mapping[str, Any]) -> float | None:
        """The score in a result, or in what it says of real images: a mean, a number or a list's length, or None."""
        found = entry(scores, *self.at or (self.name,))
        if isinstance(found, Mapping):
            found = found.get("mean")
        return len(found) if isinstance(found, list) else found

    def std(self, scores: Mapping[str, Any]) -> float | None:
        """Its standard deviation over splits or subsets, or None."""
        return entry(scores, self.name, "std")

    def bar(self, result: Mapping[str, Any]) -> float:
        """Half the length of its error bar: the standard deviation over resamples, or over splits or subsets, or 0."""
        return entry(result, f"{self.name}_interval", "std") or self.std(result) or 0.0

    def columns(self, scores: Mapping[str, Any], ends: Collection[str] = BESIDE) -> dict[str, Any]:
        """{column of a CSV: value or None}: the score, and what may stand beside it, as far as `ends` names it."""
        places = {f"{self.name}_{end}": BESIDE[end] for end in self.beside if end in ends}
        beside = {column: entry(scores, self.name + suffix, key) for column, (suffix, key) in places.items()}
        return {self.name: self.value(scores), **beside}

    def function(self) -> Callable[..., Any]:
        """What computes it: (features (N, d), Reference) -> the entry in a result."""
        return pkgutil.resolve_name(f"evaluation.scores.{self.by}")


def entry(scores: Any, *keys: str) -> Any:
    """scores[key][key]..., or None where there is none."""
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
    """The panels of these scores over training, as {title: ({statistic: its line's name}, whether logarithmic)}."""
    found: dict[str, tuple[dict[str, str], bool]] = {}
    for score in map(SCORES.__getitem__, names):
        lines, _ = found.setdefault(f"{score.panel or score.heading} ({score.direction})", ({}, score.log))
        own = f"G's own {score.label}" if score.panel else "G itself"
        lines |= {score.name: score.label, score.name + OWN: own}
    return found
