"""The report of a study: report.html, one self-contained file with all tables and figures."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from evaluation.discriminator.lipschitz import table
from evaluation.scores.registry import OWN
from training.reporting.rendering import embedded, render
from utils.files import write_text
from utils.plots import pyplot

from .claims import claims, rows
from .discriminator import OVER_TRAINING, lipschitz, over_training, singular_values
from .drawing import HERO, Figure, Table, cell, name_of, shown_setting, table_of_methods
from .grid import Study
from .methods import METRICS, SETTINGS
from .results import Result, means, over_settings, tally
from .samples import film, overview, samples
from .scores import curves, scores
from .stability import ranking, seconds


def make_report(study: Study, results: Sequence[Result]) -> Path:
    """Draw the figures of a study's Results (at least one) and write report.html. Returns its path."""
    folder = study.folder / "figures"
    folder.mkdir(exist_ok=True)
    values = {
        "title": f"{study.name}: {study.question}",
        "facts": list(_facts(study, results)),
        "protocols": sorted({result.last["protocol"] for result in results if result.finished}),
        "metric": METRICS[study.metrics[0]],
        "summary": summary(study, results),
        "ranking": ranking(study, results),
        "claims": list(rows(claims(study, results), results)),
        "figures": [(figure, _embedded(figure, folder)) for figure in figures(study, results)],
        "audits": list(_audits(study, results)),
        "unfinished": _unfinished(results),
    }
    path = study.folder / "report.html"
    write_text(path, render("study.html", **values))
    return path


def _embedded(figure: Figure, folder: Path) -> str:
    """Save a figure as PNG, and close it. Returns its data URL."""
    path = folder / f"{figure.name}.png"
    figure.drawn.savefig(path, dpi=130)
    pyplot().close(figure.drawn)
    return embedded(path, None)


def figures(study: Study, results: Sequence[Result]) -> Iterator[Figure]:
    """Draw all figures, in the order of the report."""
    for metric in study.metrics:
        yield scores(study, results, metric)
    for metric in study.metrics:
        if any(len(result.series(metric)) > 1 for result in results):  # other metrics are scored only at the end
            yield curves(study, results, metric)
    if any(result.series("fid" + OWN) for result in results):
        yield curves(study, results, "fid", own=True)
    shown = [result for result in results if result.run.setting == shown_setting(study)]
    there = not all(result.tabled for result in results)
    if there:
        yield singular_values(study, [result for result in shown if not result.tabled])
    yield lipschitz(study, results)
    for kind in OVER_TRAINING:
        yield over_training(study, shown, kind)
    if there:
        yield film(study, results)
        yield samples(study, shown)
        yield overview(study, results)
    yield seconds(study, results)


def _facts(study: Study, results: Sequence[Result]) -> Iterator[tuple[str, str]]:
    """Facts about the comparison, as (name, value)."""
    configs = [result.run.config for result in results]
    entries = [entry for result in results for entry in result.outcome.record]
    yield "methods in D", str(len(study.methods))
    yield "settings", ", ".join(study.settings) + " of the paper's table 1" * (study.table is SETTINGS)
    yield "seeds", ", ".join(map(str, study.seeds))
    yield "runs", f"{len(results)}: {tally(result.outcome.state for result in results)}"
    yield "data", _each(config.dataset for config in configs)
    yield "networks", _each(config.model for config in configs)
    yield "loss", _each(config.loss for config in configs)
    yield "steps of G", _each(f"{config.total_steps:,}" for config in configs)
    yield "scored", _each("moving average of G's weights" if c.ema_decay else "G itself" for c in configs)
    yield "device", _each(str(entry.get("device")) for entry in entries)
    yield "threads", _each(str(entry.get("threads")) for entry in entries)


def _each(words: Iterable[str]) -> str:
    """The different words among those given, in their order: "mlp" or "mlp or dcgan"."""
    return " or ".join(dict.fromkeys(words)) or "-"


def summary(study: Study, results: Sequence[Result]) -> Table:
    """The table of scores, one row per method: mean in each setting, worst setting, unfinished runs."""
    metric, badness = study.metrics[0], METRICS[study.metrics[0]].badness
    found, ranked = means(results, metric), []
    for method in study.methods:
        its = [result for result in results if result.run.method == method]
        worst = over_settings(study, its, metric, lambda scores: max(scores, key=badness))
        rest = [result.outcome.state for result in its if not result.finished]
        own = [cell(found.get((setting, method))) for setting in study.settings]
        place = worst is None, rest.count("diverged"), badness(worst.mean) if worst else 0
        ranked.append((place, method, [*own, cell(worst), tally(rest) or "-"]))
    header = [*(f"setting {setting}" for setting in study.settings), "worst setting", "not finished"]
    return table_of_methods(header, {method: cells for _, method, cells in sorted(ranked, key=lambda row: row[0])})


def _audits(study: Study, results: Sequence[Result]) -> Iterator[dict[str, Any]]:
    """The audited layers of one D with spectral norm and of one without it."""
    setting, seed = shown_setting(study), study.seeds[0]
    for method in (HERO, "none"):
        chosen = [r for r in results if (r.run.method, r.run.setting, r.run.seed) == (method, setting, seed)]
        audit = chosen[0].final_audit if chosen else None
        if audit and audit["layers"]:
            header, *layers = table(audit)
            yield {"title": f"{name_of(method)}, setting {setting}, seed {seed}", "table": Table(header, layers)}


def _unfinished(results: Sequence[Result]) -> list[list[str]]:
    """Rows for the unfinished runs, with the reason."""
    rest = [(r.run.name, r.outcome) for r in results if not r.finished]
    return [[name, found.state, f"{found.step:,}", found.message or "-"] for name, found in rest]
