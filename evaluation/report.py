"""What an evaluation leaves: lines for a person, evaluation.json and a CSV for programs, pictures for both.

No score leaves here without the protocol it was measured under.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from utils.errors import UserError
from utils.files import write_text

from . import plots

Result = dict[str, Any]  # of a generator under a protocol, as evaluation.json has it
COLUMNS = [
    *("checkpoint", "step", "ema", "protocol", "departures", "dataset", "split", "num_real", "num_samples"),
    *("inception_score_samples", "features", "features_sha256", "seed", "inception_score", "inception_score_std"),
    *("fid", "fid_low", "fid_high", "fid_infinity", "kid", "kid_std", "kid_low", "kid_high"),
    *("precision", "recall", "nearer", "warnings"),
]


def label(protocol: dict[str, Any]) -> str:
    """A protocol in a line short enough for a plot: what was counted against what, and by which features."""
    return (
        f"{protocol['name']}: {protocol['num_samples']:,} samples, {protocol['num_real']:,} {protocol['split']} images "
        f"of {protocol['dataset']}, features of the {protocol['features']} ({protocol['features_sha256'][:8]})"
    )


def flat(result: Result) -> dict[str, Any]:
    """A result's scores as a line of stats.jsonl has them, under the protocol's label."""
    found: dict[str, Any] = {name: result[name] for name in ("fid", "precision", "recall") if name in result}
    found |= {name: result[name]["mean"] for name in ("inception_score", "kid") if name in result}
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
    if "precision" in result:
        parts.append(f"precision {result['precision']:z.2f}, recall {result['recall']:z.2f}")
    drawn = "as given"
    if protocol["step"] is not None:
        drawn = f"drawn from {'the EMA of G' if protocol['ema'] else 'G'} at step {protocol['step']:,}"
    yield ", ".join(parts)
    yield f"  {label(protocol)}; samples {drawn}"
    if protocol["departures"]:
        yield f"  short of the full protocol {protocol['name']}: {'; '.join(protocol['departures'])}"


def _interval(result: Result, name: str) -> str:
    interval, digits = result.get(f"{name}_interval"), {"fid": 2, "kid": 4}[name]
    return f" ({interval['low']:z.{digits}f} to {interval['high']:z.{digits}f})" if interval else ""


def choose(results: Sequence[Result]) -> tuple[list[Result], Result, Result]:
    """Of results at several steps, those of the first protocol: (all, the one with the best FID, the last step's)."""
    first = [result for result in results if result["protocol"]["name"] == results[0]["protocol"]["name"]]
    return first, min(first, key=lambda result: result["fid"]), max(first, key=lambda result: _step(result) or 0)


def _step(result: Result) -> int | None:
    return result["protocol"]["step"]


def best_and_last(results: Sequence[Result]) -> str | None:
    """A sentence that names the best and the last of several checkpoints; None for a single one."""
    first, *chosen = choose(results)
    if len(first) == 1:
        return None
    best, last = (f"step {_step(r):,} (FID {r['fid']:z.2f}, IS {r['inception_score']['mean']:z.2f})" for r in chosen)
    return f"of {len(first)}, the best by FID is {best}, the last {last}\n  {label(chosen[0]['protocol'])}"


def csv_text(columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> str:
    """Rows as the text of a CSV file; what a row lacks stays empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write(stem: Path, results: Sequence[Result]) -> list[Path]:
    """Write STEM.json and STEM.csv of results, in the order of their steps. Returns the paths.

    The JSON is the last checkpoint's result under the first protocol; beside it `results` are all, and `best` and
    `last` name a checkpoint each, where there are several.
    """
    first, best, last = choose(results)
    content = dict(last)
    if len(first) > 1:
        for name, chosen in (("best", best), ("last", last)):
            scores = {"fid": chosen["fid"], "inception_score": chosen["inception_score"]["mean"]}
            content[name] = {"checkpoint": chosen["checkpoint"], "step": _step(chosen), **scores}
    if len(results) > 1:
        content["results"] = results
    paths = [stem.with_name(stem.name + suffix) for suffix in (".json", ".csv")]
    write_text(paths[0], json.dumps(content, indent=2) + "\n")
    write_text(paths[1], csv_text(COLUMNS, map(_row, results)))
    return paths


def _row(result: Result) -> dict[str, Any]:
    """A result as a line of the CSV."""
    protocol = result["protocol"]
    row = {name: protocol[name] for name in COLUMNS if name in protocol} | flat(result)
    row |= {
        "checkpoint": result["checkpoint"],
        "protocol": protocol["name"],
        "departures": "; ".join(protocol["departures"]),
        "inception_score_std": result["inception_score"]["std"],
        "fid_infinity": result.get("fid_infinity", {}).get("value"),
        "kid_std": result["kid"]["std"],
        "nearer": result.get("memorisation", {}).get("nearer"),
        "warnings": " ".join(result.get("warnings", [])),
    }
    for name in ("fid", "kid"):
        row |= {f"{name}_{end}": result.get(f"{name}_interval", {}).get(end) for end in ("low", "high")}
    return row


def draw(stem: Path, results: Sequence[Result], neighbours: tuple[Tensor, ...] | None = None) -> list[Path]:
    """Draw the scores over steps, where there are several, and the nearest neighbours. Returns the pictures' paths.

    neighbours: what plots.plot_neighbours() takes. In a run, pictures lie in its plots folder.
    """
    folder = stem.parent / "plots" if (stem.parent / "checkpoints").is_dir() else stem.parent
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"the scores are written, but no pictures can be into {folder}: {error.strerror}") from error
    drawn = []
    if len(set(map(_step, results))) > 1:
        drawn.append(plots.plot_scores(folder / f"{stem.name}_scores.png", results, label))
    if neighbours:
        drawn.append(plots.plot_neighbours(folder / f"{stem.name}_neighbours.png", *neighbours))
    return drawn
