"""The report of an evaluation: printed lines, evaluation.json, a CSV file and pictures.

Every score is reported together with its protocol.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from utils.console import announced
from utils.files import write_text, writing_into

from ..scores import conditional, modes
from ..scores.registry import SCORES, Score, entry, scores_of
from . import kept, plots
from .kept import COMPARED, Result, step_of

REAL = "held_out_"  # prefix of the scores of real images in the CSV
LISTED = [score for name, score in SCORES.items() if name != "classes_missing"]  # which the warnings report
OF_REAL = [*scores_of("images", "modes").values()]
COLUMNS = [
    *("checkpoint", "step", "ema", "protocol", "departures", "dataset", "split", "num_real", "num_samples"),
    *("inception_score_samples", "features", "features_sha256", "seed"),
    *(column for score in LISTED for column in score.columns({})),
    *("worst_class", "conditional", "warnings", REAL + "num"),
    *(REAL + column for score in OF_REAL for column in score.columns({}, ["std"])),
    REAL + "reason",
]
MEANINGS = """what the scores mean (docs/scoring.md has more):
  IS         more is better, at most the number of classes: is each sample clearly of one class, all equally often?
  FID        less is better, 0 is best: the distance between samples and real images, as Gaussians in feature space
  KID        less is better, about 0 is best: the same by a kernel; its mean does not depend on the number of samples
  precision  more is better, at most 1: the share of samples that lie among real images (do they look real?)
  recall     more is better, at most 1: the share of real images that lie among samples (are all kinds covered?)
  density    more is better, about 1 for real images: the number of real neighbourhoods around a sample, relative to
             the expected number
  coverage   more is better, at most 1: the share of real images with a sample in their neighbourhood
  modes      more is better: the number of the 1,000 combinations of stacked digits among 26,000 samples, with the KL
             divergence of their frequencies from those of the data (less is better)
  nearer     0.5 is best: how often a sample is nearer to a training image than an unseen image is; near 1 the samples
             are copies, near 0 they are unlike the data
  class_accuracy  more is better, at most 1: the share of samples that a classifier puts into the requested class
  intra_fid       less is better, 0 is best: the mean FID within the classes
Compare scores only under the same protocol, counts and extractor. The line "real test images" shows the scores of real
images that were held out of training.
"""


def label(protocol: dict[str, Any]) -> str:
    """A protocol in a line short enough for a plot: samples, real images and features."""
    return (
        f"{protocol['name']}: {protocol['num_samples']:,} samples, {protocol['num_real']:,} {protocol['split']} images "
        f"of {protocol['dataset']}, features of the {protocol['features']} ({protocol['features_sha256'][:8]})"
    )


def labels(groups: Iterable[Sequence[Result]]) -> list[str]:
    """A label for each group of results that share a protocol. Equal ones are completed by what else differs."""
    protocols = [group[0]["protocol"] for group in groups]
    texts = [label(p) + ", G itself, not its EMA" * (p.get("ema") is False) for p in protocols]
    found = []
    for text, protocol in zip(texts, protocols):
        alike = [other for other, its in zip(protocols, texts) if its == text]
        names = [name for name in (*COMPARED, "seed") if len({str(other.get(name)) for other in alike}) > 1]
        found.append(", ".join([text, *(f"{name} {str(protocol.get(name))[:40]}" for name in names)]))
    return found


def flat(result: Result) -> dict[str, Any]:
    """A result's scores as in a line of stats.jsonl, with the protocol's label."""
    values = {name: score.value(result) for name, score in SCORES.items()}
    found = {name: value for name, value in values.items() if value is not None}
    return found | {"protocol": label(result["protocol"])}


def summary(results: Sequence[Result]) -> str:
    """The scores of one generator as text: lines for each protocol, diagnostics and warnings."""
    lines = [line for result in results for line in _scores(result)]
    result = results[0]
    if "class_share" in result:
        lines.append("classes: " + ", ".join(f"{name} {share:.0%}" for name, share in result["class_share"].items()))
    if "memorisation" in result:
        memory = result["memorisation"]
        lines.append(
            f"median distance to the nearest of the {memory['real']}: samples {memory['distance_of_samples']:.3g}, "
            f"{memory['unseen']} {memory['distance_of_unseen']:.3g}"
        )
    sentences = [result["protocol"]["features_warning"], *result.get("warnings", [])]
    lines += [f"warning: {sentence}" for sentence in sentences if sentence]
    return "\n  ".join(lines)


def _scores(result: Result) -> Iterator[str]:
    """The lines of one protocol."""
    parts = [part for score in scores_of("images").values() for part in _words(score, result)]
    protocol, drawn = result["protocol"], "as given"
    if protocol["step"] is not None:
        drawn = f"drawn from {'the EMA of G' if protocol['ema'] else 'G'} at step {protocol['step']:,}"
    yield ", ".join(parts + modes.words(result))
    yield from conditional.lines(result)
    yield f"  {label(protocol)}; samples {drawn}"
    if held_out := result.get("held_out"):
        yield f"  {real_images(held_out)}"
    if few := result.get("as_many"):
        yield f"  {as_many(few)}"
    if protocol["departures"]:
        yield f"  short of the full protocol {protocol['name']}: {'; '.join(protocol['departures'])}"


def _words(score: Score, result: Result) -> Iterator[str]:
    """A score in words, with spread and interval, and then FID infinity, if computed."""

    def number(value: float) -> str:
        return f"{value:z.{score.digits}f}"

    if (value := score.value(result)) is not None:
        text = f"{score.label} {number(value)}"
        if (std := score.std(result)) is not None:
            text += f" +- {number(std)}"
        if interval := result.get(f"{score.name}_interval"):
            text += f" ({number(interval['low'])} to {number(interval['high'])})"
        yield text
    if infinity := result.get(f"{score.name}_infinity"):
        yield f"{score.label} infinity {number(infinity['value'])} +- {number(infinity['std'])}"


def real_images(held_out: Mapping[str, Any]) -> str:
    """The scores of real images under a result's protocol, or why there are none."""
    what = f"real {held_out.get('what', 'test images')}"
    if "fid" not in held_out:
        return f"{what}: no scores, because {held_out.get('reason', 'they were not computed')}"
    return f"{what}: {_listed(held_out)}" + (f" ({held_out['num']:,} of them)" if "num" in held_out else "")


def as_many(few: Mapping[str, Any]) -> str:
    """The scores of as many samples as real images in the line above."""
    return f"{few['num']:,} samples: {_listed(few)} (to compare with those: the fewer, the higher the FID)"


def _listed(scores: Mapping[str, Any]) -> str:
    values = {score: score.value(scores) for score in scores_of("images").values()}
    parts = [f"{score.label} {value:z.{score.digits}f}" for score, value in values.items() if value is not None]
    return ", ".join(parts + modes.words(scores))


def best_and_last(results: Sequence[Result], like: Result) -> str | None:
    """A sentence about the best and last checkpoint of those scored like `like`. None for a single one."""
    steps = kept.over_steps(results, like)
    if not (chosen := kept.best_and_last(steps).values()):
        return None
    best, last = (f"step {step_of(r):,} (FID {r['fid']:z.2f}, IS {r['inception_score']['mean']:z.2f})" for r in chosen)
    return f"of {len(steps)} checkpoints, the best by FID is {best}, the last {last}\n  {label(like['protocol'])}"


def csv_text(columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> str:
    """Rows as the text of a CSV file. Missing values are left empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write(stem: Path, new: Iterable[Result]) -> tuple[list[Path], list[Result]]:
    """Merge results into STEM.json (see kept.write()), and write all results of that as STEM.csv.

    Returns (the paths, all results).
    """
    results = kept.write(stem, new)
    paths = [stem.with_name(stem.name + suffix) for suffix in (".json", ".csv")]
    write_text(paths[1], csv_text(COLUMNS, map(_row, results)))
    return paths, results


def _row(result: Result) -> dict[str, Any]:
    """A result as a row of the CSV."""
    protocol = result["protocol"]
    row = {name: protocol[name] for name in COLUMNS if name in protocol}
    for score in LISTED:
        row |= score.columns(result)
    row |= {
        "checkpoint": result.get("checkpoint"),
        "protocol": protocol["name"],
        "departures": "; ".join(protocol["departures"]),
        "worst_class": entry(result, "intra_fid", "worst", "class"),
        "warnings": " ".join(result.get("warnings", [])),
    }
    held_out = result.get("held_out", {})
    real = {name: held_out.get(name) for name in ("num", "reason")}
    for score in OF_REAL:
        real |= score.columns(held_out, ["std"])
    return row | {REAL + name: value for name, value in real.items()}


def draw(stem: Path, results: Sequence[Result], pictures: Mapping[str, tuple[Tensor, ...] | None]) -> list[Path]:
    """Draw the scores over steps, if there are several, and nearest neighbours. Returns the pictures' paths.

    results: all of STEM.json. pictures: {name: arguments of plots.plot_neighbours()}. Pictures of a run are written to
    its plots folder.
    """
    folder = stem.parent / "plots" if (stem.parent / "checkpoints").is_dir() else stem.parent
    drawn: list[Path] = []
    with announced("drawing the scores"), writing_into(folder):
        folder.mkdir(exist_ok=True)
        if len({step_of(result) for result in results} - {None}) > 1:
            groups = in_groups(results)
            drawn.append(plots.plot_scores(folder / f"{stem.name}_scores.png", dict(zip(labels(groups), groups))))
        for name, neighbours in pictures.items():
            if neighbours:
                drawn.append(plots.plot_neighbours(folder / f"{name}_neighbours.png", *neighbours))
    return drawn


def in_groups(results: Sequence[Result]) -> list[list[Result]]:
    """Group the results that have steps by all but the checkpoint. The headline's group comes first."""
    groups: list[list[Result]] = []
    left = [result for result in results if step_of(result) is not None]
    while left:
        groups.append(kept.over_steps(left, kept.headline(left)))
        left = [result for result in left if not any(result is other for other in groups[-1])]
    return groups
