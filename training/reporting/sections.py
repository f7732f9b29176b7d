"""Sections of a run's page, read from its files: curves, scores, classes, neighbours, audit, warnings."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.discriminator import lipschitz
from evaluation.results import kept
from evaluation.results.report import as_many, label, real_images
from evaluation.scores import conditional, registry
from settings.config import Config
from settings.layers import usual_steps
from utils.console import command

from ..checkpoints.run_dir import checkpoints
from . import rendering
from .charts import Chart, chart
from .plots import PANELS, points_of

NEIGHBOURS_BYTES = 400_000


def charts(stats: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """A chart for each kind of statistic in stats.jsonl."""
    known = {name for lines, _ in PANELS.values() for name in lines} | {"step", "protocol"}
    rest = dict.fromkeys(name for line in stats for name in line if name not in known)
    panels = PANELS | {name: ({name: name}, False) for name in rest}
    drawn = (chart(title, points_of(stats, lines), log) for title, (lines, log) in panels.items())
    return [panel for panel in drawn if panel]


def _cell(score: registry.Score, result: kept.Result) -> str | tuple[str, str]:
    """A score as a table cell, with its standard deviation if it has one."""
    value, std = score.value(result), score.std(result)
    text = "-" if value is None else f"{value:z.{score.digits}f}"
    return text if std is None else (text, f"± {std:.{score.digits}f}")


def scores(results: Sequence[kept.Result]) -> dict[str, Any] | None:
    """The table of all scores with their protocols, newest step first, and notes on it."""
    if not results:
        return None
    listed = registry.scores_of("images", "modes").values()
    shown = [score for score in listed if any(score.value(result) is not None for result in results)]
    shown.append(registry.SCORES["nearer"])
    rows = []
    for result in sorted(results, key=lambda result: -(kept.step_of(result) or 0)):
        protocol, step = result["protocol"], kept.step_of(result)
        name = protocol["name"] + ("" if protocol.get("ema") is not False else ", G itself")
        rows.append([f"{step:,}" if step is not None else "-", name, *(_cell(score, result) for score in shown)])
    top = kept.headline(results)
    lines = ["Arrows point in the better direction.", f"{label(top['protocol'])}."]
    if departures := top["protocol"].get("departures"):
        lines.append(f"Departs from the full protocol: {'; '.join(departures)}.")
    lines += [f"{line[:1].upper()}{line[1:]}." for line in conditional.lines(top)]
    if held_out := top.get("held_out"):
        lines.append(f"For comparison, {real_images(held_out)}.")
    if few := top.get("as_many"):
        lines.append(f"And {as_many(few)}.")
    return {"table": (["step", "protocol", *(score.pointed for score in shown)], rows), "lines": lines}


def classes(result: kept.Result) -> tuple[list[str], list[list[str]]] | None:
    """The table of class shares, or None if the result has none."""
    if not result.get("class_share"):
        return None
    real = result.get("class_share_training", {})
    shares = result["class_share"].items()
    rows = [[name, f"{share:.1%}", f"{real[name]:.1%}" if name in real else "-"] for name, share in shares]
    return ["class", "samples", "training images"], rows


def pictures(run_dir: Path, result: kept.Result) -> list[dict[str, str]]:
    """The picture of nearest neighbours from the last scoring, if there is one."""
    path = run_dir / "plots" / "evaluation_neighbours.png"
    if not path.exists():
        return []
    said = "Samples next to the training images nearest to them in feature space."
    if "has collapsed" in " ".join(result.get("warnings", [])):
        said += " All samples are nearly the same image, so their distance to training images tells nothing of copies."
    elif memory := result.get("memorisation"):
        said += (
            f" A sample is nearer to one than {memory['unseen']} are in {memory['nearer']:.0%} of comparisons: 50% is "
            "expected without copying, near 100% means copies."
        )
    return [{"title": "Nearest neighbours", "caption": said, "src": rendering.embedded(path, NEIGHBOURS_BYTES)}]


def audit(run_dir: Path) -> dict[str, Any] | None:
    """The last audit of D as a table and a sentence, or None."""
    during = sorted((run_dir / "audits").glob("step_*.json"), key=lambda path: (len(path.name), path.name))
    paths = [path for path in [run_dir / "audit.json", *during[-1:]] if path.exists()]
    if not paths:
        return None
    path = max(paths, key=lambda path: path.stat().st_mtime)
    found = json.loads(path.read_text(encoding="utf-8"))
    step = found.get("step", int(path.stem[5:]) if path.stem.startswith("step_") else 0)
    header, *rows = lipschitz.table(found)
    text = f"At step {step:,} {lipschitz.bound(found)}, and the steepest gradient seen is {found['lower_bound']:.4g}."
    return {"table": (header, rows), "text": text}


def warnings(run_dir: Path, result: kept.Result, config: Config) -> Iterator[str]:
    """Yield the warnings of the last scoring, each with advice."""
    told = [result.get("protocol", {}).get("features_warning"), *result.get("warnings", [])]
    for text in filter(None, told):
        advice = advices(run_dir, config, kept.step_of(result) or 0).items()
        yield ". ".join([f"At the last scoring: {text}", *(what for words, what in advice if words in text)]) + "."


def advices(run_dir: Path, config: Config, step: int) -> dict[str, str]:
    """{words of a warning in evaluation/scores/diagnostics.py: advice that the run does not follow yet}."""
    early = 2 * step < (usual := usual_steps(config) or 0)  # then the advice is to train on, whatever else is wrong
    earlier = not early and any(other < step for other, _ in checkpoints(run_dir))
    train = "Take an earlier checkpoint, or train" if earlier else "Train"
    bound = "with --d_norm spectral, " * (config.d_norm != ("spectral",))
    more = ["on more images"] * (config.num_images is not None or config.dataset == "folder")
    more += ["with --augment color translation cutout --augment_p adaptive"] * (config.augment == ("none",))
    found = {
        "has collapsed": f"{train} {bound}with smaller --lr_D and --lr_G, or with another --seed",
        "drops modes": "Train longer, or with a larger --batch_size",
        "may copy": f"{train} {' or '.join(more or ['for fewer steps'])}",
        "modes are missing": "Look at the samples; if they look real, train longer or with a larger --batch_size",
    }
    if early:
        longer = command("--resume", run_dir, "--total_steps", usual)
        first = f"Train longer first: it has {step:,} of the usual {usual:,} steps ({longer})"
        found |= dict.fromkeys(("has collapsed", "drops modes", "modes are missing"), first)
    return found
