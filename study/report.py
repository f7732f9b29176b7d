"""The report of a study: report.html, one file that needs no other, every figure with a sentence computed for it."""

import base64
import html
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from evaluation.lipschitz import table
from utils.files import write_text

from . import drawing
from .discriminator import dynamics, lipschitz, singular_values, spectra_over_training
from .drawing import HERO, Figure, number, shown_setting
from .grid import METHODS, METRICS, Study
from .results import Result, means, tally, worst_cases
from .samples import overview, samples, seconds
from .scores import curves, scores

STYLE = """
body { margin: 0 auto; padding: 1rem; max-width: 60rem; color: #222; background: #fff;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
figure { margin: 1rem 0; } figcaption { margin-top: .5rem; max-width: 46rem; }
img { max-width: 100%; height: auto; display: block; }
table { border-collapse: collapse; font-size: .875rem; overflow-wrap: normal; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; } tr.hero { font-weight: 600; }
small { color: #555; display: block; }
@media (max-width: 50rem) { /* each row as a list of its cells */
  th { display: none; } table, tbody, tr, td { display: block; } tr { padding: .5rem 0; border-bottom: 1px solid #999; }
  td, td:first-child { display: flex; justify-content: space-between; gap: 1rem; border: 0; padding: .1rem 0; }
  td:first-child { font-weight: 600; } td::before { content: attr(data-label); color: #555; } small { display: inline; }
}
code { font-size: .875em; background: #f3f3f3; }
"""
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def make_report(study: Study, results: Sequence[Result]) -> Path:
    """Draw the figures of a study's Results, of which there are some, and write report.html. Returns its path."""
    folder = study.folder / "figures"
    folder.mkdir(exist_ok=True)
    parts = [_introduction(study, results), _summary(study, results)]
    for figure in figures(study, results):
        parts.append(_figure(figure, drawing.save_figure(figure, folder)))
    parts += [_audits(study, results), _runs(results)]
    title = html.escape(f"{study.name}: does spectral normalization help?")
    page = PAGE.format(title=title, style=STYLE, body="\n".join(parts))
    path = study.folder / "report.html"
    write_text(path, page)
    return path


def figures(study: Study, results: Sequence[Result]) -> Iterator[Figure]:
    """Draw all figures; yields them in the order of the report."""
    for draw in (scores, curves):
        for metric in study.metrics:
            yield draw(study, results, metric)
    shown = [result for result in results if result.run.setting == shown_setting(study)]
    yield singular_values(study, shown)
    yield spectra_over_training(study, shown)
    yield dynamics(study, shown)
    yield lipschitz(study, results)
    yield samples(study, shown)
    yield overview(study, results)
    yield seconds(study, results)


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def _introduction(study: Study, results: Sequence[Result]) -> str:
    """What was compared, on what, under which protocol, and what must be known of it."""
    config = results[0].run.config
    said = tally(result.outcome.state for result in results)
    losses = " or, where a method has its own, ".join(sorted({r.run.config.loss for r in results}))
    evaluations = [r.outcome.evaluation["protocol"] for r in results if r.outcome.evaluation]
    protocols = sorted({r.last["protocol"] for r in results if r.finished})
    text = (
        f"{len(study.methods)} methods in D, {len(study.settings)} of the optimizer settings of Miyato et al. 2018 "
        f"(table 1) and {len(study.seeds)} seed{'s' * (len(study.seeds) > 1)} on {config.dataset}: {len(results)} runs "
        f"({said}) of {config.total_steps:,} steps of G with the {config.model} pair. The loss is {losses}. "
        f"Scores are of {'the moving average of its weights' if config.ema_decay else 'G itself'}. Intervals are "
        "Student's, of the mean over seeds, at 95 %; for FID, of its geometric mean. In the figures of scores a hollow "
        "dot is a run that is not finished, a cross one that diverged."
    )
    if protocols:
        text += f" Protocol: {'; '.join(protocols)}. Scores under another one do not compare with these."
    if len({protocol["features_sha256"] for protocol in evaluations}) > 1:
        text += " Warning: the runs were scored by extractors with different weights, so they do not compare either."
    return _paragraph(text)


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]], heroes: Collection[int] = ()) -> str:
    """An HTML table of text; a cell (text, text) has the second one smaller. heroes: the numbers of rows in bold."""
    lines = ["<tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in header) + "</tr>"]
    for i, row in enumerate(rows):
        cells = []
        for label, cell in zip(header, row):
            first, second = cell if isinstance(cell, tuple) else (cell, None)
            text = html.escape(first) + (f" <small>{html.escape(second)}</small>" if second else "")
            cells.append(f'<td data-label="{html.escape(label)}"><span>{text}</span></td>')
        opening = '<tr class="hero">' if i in heroes else "<tr>"
        lines.append(f"{opening}{''.join(cells)}</tr>")
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def _summary(study: Study, results: Sequence[Result]) -> str:
    """A row a method: the mean in every setting, the worst of them, and what is not finished."""
    metric = "fid" if "fid" in study.metrics else study.metrics[0]
    found = means(results, metric)
    worst = worst_cases(study, found, metric)
    order = [*worst, *(method for method in study.methods if method not in worst)]
    rows = []
    for method in order:
        cells = []
        for setting in study.settings:
            spread = found.get((setting, method))
            wide = f"{number(spread.low)} to {number(spread.high)}" if spread and spread.count > 1 else None
            cells.append((number(spread.mean) if spread else "-", wide))
        rest = tally(r.outcome.state for r in results if r.run.method == method and not r.finished)
        rows.append([METHODS[method].label, *cells, number(worst[method]) if method in worst else "-", rest or "-"])
    header = ["method", *(f"setting {setting}" for setting in study.settings), "worst", "not finished"]
    table = _table(header, rows, [place for place, method in enumerate(order) if method == HERO])
    text = (
        f"{METRICS[metric][0]} at the last step: mean over seeds and interval, ordered by each method's worst setting."
    )
    return f"<h2>Every method in every setting</h2>\n{table}\n{_paragraph(text)}"


def _figure(figure: Figure, path: Path) -> str:
    picture = base64.b64encode(path.read_bytes()).decode("ascii")
    words, title = html.escape(figure.sentence), html.escape(figure.title)
    return (
        f'<h2>{title}</h2>\n<figure><img alt="{title}" src="data:image/png;base64,{picture}">'
        f"<figcaption>{words}</figcaption></figure>"
    )


def _bound(audit: dict[str, Any]) -> str:
    if audit["upper_bound"] is None:
        return f"D's slope has no bound that is known ({audit['no_bound']})"
    return f"D is no steeper than {number(audit['upper_bound'])}"


def _audits(study: Study, results: Sequence[Result]) -> str:
    """The layers of a D under spectral norm and of one without, as evaluate.py --audit shows them."""
    setting, seed = shown_setting(study), study.seeds[0]
    parts = []
    for method in (HERO, "none"):
        chosen = [r for r in results if (r.run.method, r.run.setting, r.run.seed) == (method, setting, seed)]
        if not chosen or not chosen[0].final_audit:
            continue
        audit = chosen[0].final_audit
        header, *rows = table(audit)
        off = max(abs(layer["sigma_svd"] - 1) for layer in audit["layers"])
        text = (
            f"{METHODS[method].label}, setting {setting}, seed {seed}: the largest singular value of a reshaped weight "
            f"is off 1 by {off:.3f} at most. {_bound(audit)}, and was seen at "
            f"{number(audit['lower_bound'])} on images, samples and between them."
        )
        parts.append(f"{_table(header, rows)}\n{_paragraph(text)}")
    return "\n".join(["<h2>Discriminators, layer by layer</h2>", *parts] if parts else [])


def _runs(results: Sequence[Result]) -> str:
    """The runs that are not finished, with the reason; where the numbers are."""
    text = "<h2>The runs</h2>\n<p>Every number is in <code>results.csv</code>, a line a run.</p>\n"
    rest = [r for r in results if not r.finished]
    if not rest:
        return text + "<p>All runs that were started are finished.</p>"
    rows = [[r.run.name, r.outcome.state, f"{r.outcome.step:,}", r.outcome.message or "-"] for r in rest]
    return text + _table(["run", "outcome", "step", "why"], rows)
