"""What an evaluation leaves: lines for a person, evaluation.json and a CSV for programs, pictures for both.

No score leaves here without the protocol it was measured under.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from utils.console import announced
from utils.errors import UserError
from utils.files import write_text

from ..scores import conditional, modes
from ..scores.manifold import SCORES as NEIGHBOURHOODS
from . import kept, plots
from .kept import COMPARED, Result, step_of

REAL = "held_out_"  # in front of the names of real images' scores, in the CSV
CONDITIONAL = ("class_accuracy", "intra_fid")  # scores of conditional generators alone
COLUMNS = [
    *("checkpoint", "step", "ema", "protocol", "departures", "dataset", "split", "num_real", "num_samples"),
    *("inception_score_samples", "features", "features_sha256", "seed", "inception_score", "inception_score_std"),
    *("fid", "fid_low", "fid_high", "fid_infinity", "kid", "kid_std", "kid_low", "kid_high"),
    *(*NEIGHBOURHOODS, "modes", "modes_kl", "nearer", *CONDITIONAL, "worst_class", "conditional", "warnings"),
    *(REAL + name for name in ("num", "inception_score", "inception_score_std", "fid", "kid", "kid_std")),
    *(REAL + name for name in (*NEIGHBOURHOODS, "modes", "modes_kl", "reason")),
]
MEANINGS = """what the scores mean:
  IS         Inception Score, more is better: how surely single samples are of one class, and how evenly the classes
             come; 1 is the least, their number the most. It looks at no real image.
  FID        less is better, 0 the best: the distance between samples and real images, as clouds in feature space.
  KID        less is better, about 0 the best: the like, by a kernel; its mean does not depend on how many samples.
  precision  more is better, 1 the most: the share of samples that lie among real images, so how real they look.
  recall     more is better, 1 the most: the share of real images that lie among samples, so how much is covered.
  density    more is better, 1 is alike: how many real images' neighbourhoods hold a sample, of those expected.
  coverage   more is better, 1 the most: the share of real images with a sample in their neighbourhood. Density
             and it are less moved than precision and recall by single images that lie far from all others.
  modes      of stacked digits; more is better: how many of the 1,000 combinations are among 26,000 samples. Beside it
             the KL divergence of their frequencies from the data's, less is better, about 0 the best.
  nearer     0.5 is best: how often a sample lies nearer to a training image than an unseen image does; near 1 the
             samples are copies, near 0 they are unlike the data.
  class_accuracy  of a conditional generator; more is better, 1 the most: the share of samples that a classifier takes
             for the class that was asked for. See it beside what the classifier makes of real test images.
  intra_fid  of a conditional generator; less is better: the mean of the FIDs within the classes.
A number says something beside others of the same protocol, counts and extractor alone, above all beside what real
images that were held out get under them: that is the line of "real test images".
"""


def label(protocol: dict[str, Any]) -> str:
    """A protocol in a line short enough for a plot: what was counted against what, and by which features."""
    return (
        f"{protocol['name']}: {protocol['num_samples']:,} samples, {protocol['num_real']:,} {protocol['split']} images "
        f"of {protocol['dataset']}, features of the {protocol['features']} ({protocol['features_sha256'][:8]})"
    )


def labels(groups: Iterable[Sequence[Result]]) -> list[str]:
    """A label for each group of results that share a protocol; where two would be the same, with what else differs."""
    protocols = [group[0]["protocol"] for group in groups]
    texts = [label(p) + ", G itself, not its EMA" * (p.get("ema") is False) for p in protocols]
    found = []
    for text, protocol in zip(texts, protocols):
        alike = [other for other, its in zip(protocols, texts) if its == text]
        names = [name for name in (*COMPARED, "seed") if len({str(other.get(name)) for other in alike}) > 1]
        found.append(", ".join([text, *(f"{name} {str(protocol.get(name))[:40]}" for name in names)]))
    return found


def flat(result: Result) -> dict[str, Any]:
    """A result's scores as a line of stats.jsonl has them, under the protocol's label."""
    found: dict[str, Any] = {name: result[name] for name in ("fid", *NEIGHBOURHOODS) if name in result}
    found |= modes.numbers(result)
    means = {name: result[name]["mean"] for name in ("inception_score", "kid", *CONDITIONAL) if name in result}
    found |= {name: mean for name, mean in means.items() if mean is not None}
    if "memorisation" in result:
        found["nearer"] = result["memorisation"]["nearer"]
    if "classes_missing" in result:
        found["classes_missing"] = len(result["classes_missing"])
    return found | {"protocol": label(result["protocol"])}


def summary(results: Sequence[Result]) -> str:
    """The scores of one generator for a person: a few lines for each protocol, then what they have in common."""
    lines = [line for result in results for line in _scores(result)]
    result = results[0]
    if "class_share" in result:
        lines.append("classes: " + ", ".join(f"{name} {share:.0%}" for name, share in result["class_share"].items()))
    if "memorisation" in result:
        memory = result["memorisation"]
        lines.append(
            f"nearest of the {memory['real']}: at {memory['distance_of_samples']:.3g} in the median, for "
            f"{memory['unseen']} at {memory['distance_of_unseen']:.3g}"
        )
    sentences = [result["protocol"]["features_warning"], *result.get("warnings", [])]
    lines += [f"warning: {sentence}" for sentence in sentences if sentence]
    return "\n  ".join(lines)


def _scores(result: Result) -> Iterator[str]:
    """The lines of one protocol."""
    score, protocol = result["inception_score"], result["protocol"]
    parts = [f"IS {score['mean']:z.2f} +- {score['std']:z.2f}", f"FID {result['fid']:z.2f}{_interval(result, 'fid')}"]
    if "fid_infinity" in result:
        parts.append(f"FID infinity {result['fid_infinity']['value']:z.2f} +- {result['fid_infinity']['std']:z.2f}")
    if "kid" in result:
        parts.append(f"KID {result['kid']['mean']:z.4f} +- {result['kid']['std']:z.4f}{_interval(result, 'kid')}")
    parts += [f"{name} {result[name]:z.2f}" for name in NEIGHBOURHOODS if name in result] + modes.words(result)
    drawn = "as given"
    if protocol["step"] is not None:
        drawn = f"drawn from {'the EMA of G' if protocol['ema'] else 'G'} at step {protocol['step']:,}"
    yield ", ".join(parts)
    yield from conditional.lines(result)
    yield f"  {label(protocol)}; samples {drawn}"
    if held_out := result.get("held_out"):
        yield f"  {real_images(held_out)}"
    if protocol["departures"]:
        yield f"  short of the full protocol {protocol['name']}: {'; '.join(protocol['departures'])}"


def _interval(result: Result, name: str) -> str:
    interval, digits = result.get(f"{name}_interval"), {"fid": 2, "kid": 4}[name]
    return f" ({interval['low']:z.{digits}f} to {interval['high']:z.{digits}f})" if interval else ""


def real_images(held_out: Mapping[str, Any]) -> str:
    """What real images get under a result's protocol, as a line; or why that is not known."""
    what = f"real {held_out.get('what', 'test images')}"
    if "fid" not in held_out:
        return f"{what}: no scores, since {held_out.get('reason', 'they were not taken')}"
    parts = [f"IS {held_out['inception_score']['mean']:z.2f}", f"FID {held_out['fid']:z.2f}"]
    parts += [f"KID {held_out['kid']['mean']:z.4f}"] if "kid" in held_out else []
    parts += [f"{name} {held_out[name]:z.2f}" for name in NEIGHBOURHOODS if name in held_out] + modes.words(held_out)
    return f"{what}: {', '.join(parts)}" + (f" ({held_out['num']:,} of them)" if "num" in held_out else "")


def best_and_last(results: Sequence[Result], like: Result) -> str | None:
    """A sentence that names the best and the last checkpoint of those scored as `like` was; None for a single one."""
    steps = kept.over_steps(results, like)
    if len(steps) < 2:
        return None
    chosen = min(steps, key=lambda result: result["fid"]), steps[-1]
    best, last = (f"step {step_of(r):,} (FID {r['fid']:z.2f}, IS {r['inception_score']['mean']:z.2f})" for r in chosen)
    return f"of {len(steps)}, the best by FID is {best}, the last {last}\n  {label(like['protocol'])}"


def csv_text(columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> str:
    """Rows as the text of a CSV file; what a row lacks stays empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write(stem: Path, new: Iterable[Result]) -> tuple[list[Path], list[Result]]:
    """Merge results into STEM.json (see kept.write()), and write all it holds then as STEM.csv.

    Returns (the paths, all results).
    """
    results = kept.write(stem, new)
    paths = [stem.with_name(stem.name + suffix) for suffix in (".json", ".csv")]
    write_text(paths[1], csv_text(COLUMNS, map(_row, results)))
    return paths, results


def _row(result: Result) -> dict[str, Any]:
    """A result as a line of the CSV."""
    protocol = result["protocol"]
    row = {name: protocol[name] for name in COLUMNS if name in protocol} | _numbers(result)
    row |= {
        "checkpoint": result.get("checkpoint"),
        "protocol": protocol["name"],
        "departures": "; ".join(protocol["departures"]),
        "fid_infinity": result.get("fid_infinity", {}).get("value"),
        "nearer": result.get("memorisation", {}).get("nearer"),
        "worst_class": ((result.get("intra_fid") or {}).get("worst") or {}).get("class"),
        **{name: (result.get(name) or {}).get("mean") for name in CONDITIONAL},
        "warnings": " ".join(result.get("warnings", [])),
    }
    for name in ("fid", "kid"):
        row |= {f"{name}_{end}": result.get(f"{name}_interval", {}).get(end) for end in ("low", "high")}
    held_out = result.get("held_out", {})
    row |= {REAL + name: value for name, value in _numbers(held_out).items()}
    return row | {REAL + name: held_out.get(name) for name in ("num", "reason")}


def _numbers(scores: Mapping[str, Any]) -> dict[str, float]:
    """Scores of samples or of real images, as columns: those that there are."""
    found = {name: scores[name] for name in ("fid", *NEIGHBOURHOODS) if name in scores} | modes.numbers(scores)
    for name in ("inception_score", "kid"):
        if name in scores:
            found |= {name: scores[name]["mean"], f"{name}_std": scores[name]["std"]}
    return found


def draw(stem: Path, results: Sequence[Result], pictures: Mapping[str, tuple[Tensor, ...] | None]) -> list[Path]:
    """Draw all scores over steps, where there are several, and nearest neighbours. Returns the pictures' paths.

    results: all of STEM.json. pictures: {name of a picture: what plots.plot_neighbours() takes}. In a run, they lie in
    its plots folder.
    """
    folder = stem.parent / "plots" if (stem.parent / "checkpoints").is_dir() else stem.parent
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"the scores are written, but no pictures can be into {folder}: {error.strerror}") from error
    with announced("drawing the scores"):
        return list(_draw(folder, stem.name, results, pictures))


def _draw(
    folder: Path, name: str, results: Sequence[Result], pictures: Mapping[str, tuple[Tensor, ...] | None]
) -> Iterator[Path]:
    if len({step_of(result) for result in results} - {None}) > 1:
        groups = in_groups(results)
        yield plots.plot_scores(folder / f"{name}_scores.png", dict(zip(labels(groups), groups)))
    for picture, neighbours in pictures.items():
        if neighbours:
            yield plots.plot_neighbours(folder / f"{picture}_neighbours.png", *neighbours)


def in_groups(results: Sequence[Result]) -> list[list[Result]]:
    """Results that have steps, in groups of those that differ in the checkpoint alone: first that of the headline."""
    groups: list[list[Result]] = []
    left = [result for result in results if step_of(result) is not None]
    while left:
        groups.append(kept.over_steps(left, kept.headline(left)))
        left = [result for result in left if not any(result is other for other in groups[-1])]
    return groups
