"""The report of a study: report.html, one file that needs no other, every figure with a sentence computed for it."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from evaluation.discriminator.lipschitz import table
from evaluation.scores.registry import OWN
from training.reporting.rendering import embedded, render
from utils.files import write_text

from .claims import claims, rows
from .discriminator import dynamics, lipschitz, singular_values, slope_over_training, spectra_over_training
from .drawing import HERO, Figure, number, save_figure, shown_setting
from .grid import Study
from .methods import METHODS, METRICS, SETTINGS
from .results import Result, means, tally, worst_cases
from .samples import overview, samples, seconds
from .scores import curves, scores
from .stability import cell, film, ranking, steadiness

INTERVALS = "Intervals are Student's, of the mean over seeds, at 95 %; for FID and KL, of its geometric mean. "


def make_report(study: Study, results: Sequence[Result]) -> Path:
    """Draw the figures of a study's Results, of which there are some, and write report.html. Returns its path."""
    folder = study.folder / "figures"
    folder.mkdir(exist_ok=True)
    values = {
        "title": f"{study.name}: {study.question}",
        "introduction": _introduction(study, results),
        "summary": _summary(study, results),
        "ranking": ranking(study, results),
        "claims": list(rows(claims(study, results))),
        "figures": [_shown(drawn, folder) for drawn in figures(study, results)],
        "audits": list(_audits(study, results)),
        "unfinished": _unfinished(results),
    }
    path = study.folder / "report.html"
    write_text(path, render("study.html", **values))
    return path


def _shown(figure: Figure, folder: Path) -> dict[str, str]:
    """A figure as the page takes it; it is saved, and closed, at once."""
    return {"title": figure.title, "sentence": figure.sentence, "src": embedded(save_figure(figure, folder), None)}


def figures(study: Study, results: Sequence[Result]) -> Iterator[Figure]:
    """Draw all figures; yields them in the order of the report."""
    for metric in study.metrics:
        yield scores(study, results, metric)
    for metric in study.metrics:
        if any(len(result.values(metric)) > 1 for result in results):  # the others are scored at the end alone
            yield curves(study, results, metric)
    if any(result.values("fid" + OWN) for result in results):
        yield curves(study, results, "fid", own=True)
    yield steadiness(study, results)
    shown = [result for result in results if result.run.setting == shown_setting(study)]
    there = not all(result.tabled for result in results)
    if there:
        whole = [result for result in shown if not result.tabled]
        yield singular_values(study, whole)
        yield spectra_over_training(study, whole)
    yield dynamics(study, shown)
    yield lipschitz(study, results)
    yield slope_over_training(study, shown)
    if there:
        yield film(study, results)
        yield samples(study, shown)
        yield overview(study, results)
    yield seconds(study, results)


def _introduction(study: Study, results: Sequence[Result]) -> str:
    """What was compared, on what, under which protocol, and what must be known of it."""
    configs = [result.run.config for result in results]
    said = tally(result.outcome.state for result in results)
    own = sorted({r.run.config.loss for r in results} - {study.base.get("loss")})
    losses = " or, where a method has its own, ".join(filter(None, [study.base.get("loss"), " or ".join(own)]))
    protocols = sorted({r.last["protocol"] for r in results if r.finished})
    count = len(study.settings)
    named = f"{count} setting{'s' * (count > 1)}"
    of = f"{count} of the optimizer settings of Miyato et al. 2018 (table 1)" if study.table is SETTINGS else named
    text = (
        f"{len(study.methods)} methods in D, {of} "
        f"and {len(study.seeds)} seed{'s' * (len(study.seeds) > 1)} on {_each(c.dataset for c in configs)}: "
        f"{len(results)} runs ({said}) of {_each(f'{c.total_steps:,}' for c in configs)} steps of G with the "
        f"{_each(c.model for c in configs)} pair. The loss is {losses}. Scores are of "
        f"{_each('the moving average of its weights' if c.ema_decay else 'G itself' for c in configs)}. "
        f"{INTERVALS if len(study.seeds) > 1 else ''}In the figures of scores a "
        "hollow dot is a run that is not finished, a cross one that diverged."
    )
    if protocols:
        text += f" Protocol: {'; '.join(protocols)}. Scores under another one do not compare with these."
    if len(protocols) > 1:
        text += " Warning: the runs were scored under different ones, or by extractors with different weights."
    return text


def _each(words: Iterable[str]) -> str:
    """What the runs have, where they do not have the same too."""
    return " or ".join(dict.fromkeys(words))


def _summary(study: Study, results: Sequence[Result]) -> dict[str, Any]:
    """A row a method: the mean in every setting, the worst of them, and what is not finished."""
    metric = study.metrics[0]
    found = means(results, metric)
    worst = worst_cases(study, found, metric)
    order = [*worst, *(method for method in study.methods if method not in worst)]
    rows = []
    for method in order:
        cells = []
        for setting in study.settings:
            spread = found.get((setting, method))
            cells.append(cell(spread))
        rest = tally(r.outcome.state for r in results if r.run.method == method and not r.finished)
        rows.append([METHODS[method].label, *cells, number(worst[method]) if method in worst else "-", rest or "-"])
    header = ["method", *(f"setting {setting}" for setting in study.settings), "worst mean", "not finished"]
    heroes = [place for place, method in enumerate(order) if method == HERO]
    words = METRICS[metric].heading
    means_of = "mean over seeds and interval" if len(study.seeds) > 1 else "one seed"
    text = f"{words} at the last step: {means_of}, ordered by the worst of each method's means."
    return {"table": (header, rows, heroes), "text": text}


def _bound(audit: dict[str, Any]) -> str:
    if audit["upper_bound"] is None:
        return f"D's slope has no bound that is known ({audit['no_bound']})"
    return f"D is no steeper than {number(audit['upper_bound'])}"


def _audits(study: Study, results: Sequence[Result]) -> Iterator[dict[str, Any]]:
    """The layers of a D under spectral norm and of one without, as evaluate.py --audit shows them."""
    setting, seed = shown_setting(study), study.seeds[0]
    for method in (HERO, "none"):
        chosen = [r for r in results if (r.run.method, r.run.setting, r.run.seed) == (method, setting, seed)]
        audit = chosen[0].final_audit if chosen else None
        if audit is None or not audit["layers"]:
            continue
        header, *rows = table(audit)
        off = max(abs(layer["sigma_svd"] - 1) for layer in audit["layers"])
        text = (
            f"{METHODS[method].label}, setting {setting}, seed {seed}: the largest singular value of a reshaped weight "
            f"is off 1 by {off:.3f} at most. {_bound(audit)}, and was seen at "
            f"{number(audit['lower_bound'])} on images, samples and between them."
        )
        yield {"table": (header, rows), "text": text}


def _unfinished(results: Sequence[Result]) -> list[list[str]]:
    """The runs that are not finished, with the reason."""
    rest = [r for r in results if not r.finished]
    return [[r.run.name, r.outcome.state, f"{r.outcome.step:,}", r.outcome.message or "-"] for r in rest]
