"""The report of a study: report.html, one file that needs no other, every figure with a sentence computed for it."""

import base64
import html

from . import study_figures
from .checkpoint import write_atomically
from .errors import UserError
from .study import METHODS, METRICS
from .study_figures import HERO, number
from .study_results import by, interval

STYLE = """
body { margin: 0 auto; padding: 1rem; max-width: 60rem; color: #222; background: #fff;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
figure { margin: 1rem 0; } figcaption { margin-top: .5rem; max-width: 46rem; }
img { max-width: 100%; height: auto; display: block; }
.table { overflow-x: auto; } table { border-collapse: collapse; font-size: .875rem; overflow-wrap: normal; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } tr.hero { font-weight: 600; }
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


def make_report(study, results):
    """Draw the figures of a study's Results and write report.html. Returns its path; UserError without any result."""
    if not results:
        raise UserError(f"{study.folder} holds no run of this study yet")
    folder = study.folder / "figures"
    folder.mkdir(exist_ok=True)
    parts = [_introduction(study, results), _summary(study, results)]
    for figure in study_figures.figures(study, results):
        parts.append(_figure(figure, study_figures.save(figure, folder)))
    parts += [_audits(study, results), _runs(results)]
    page = PAGE.format(
        title=html.escape(f"{study.name}: does spectral normalization help?"), style=STYLE, body="\n".join(parts)
    )
    path = study.folder / "report.html"
    write_atomically(path, lambda temporary: temporary.write_text(page, encoding="utf-8"))
    return path


def _introduction(study, results):
    """What was compared, on what, under which protocol."""
    config = results[0].run.config
    states = {state: sum(r.outcome.state == state for r in results) for state in ("finished", "diverged", "failed")}
    count = len(study.methods) * len(study.settings) * len(study.seeds)
    short = count - states["finished"] - states["diverged"] - states["failed"]
    said = ", ".join(f"{number} {state}" for state, number in states.items() if number)
    said += f", {short} not finished" if short else ""
    losses = " or, where a method has its own, ".join(sorted({r.run.config.loss for r in results}))
    protocols = sorted({r.last["protocol"] for r in results if r.last})
    sentences = [
        f"{len(study.methods)} methods in D, {len(study.settings)} of the optimizer settings of Miyato et al. 2018 "
        f"(table 1) and {len(study.seeds)} seed(s) on {config.dataset}: {count} runs of {config.total_steps:,} steps "
        f"of G with the {config.model} pair ({said or 'none begun'}). The loss is {losses}.",
        "Scores are of the moving average of G's weights." if config.ema_decay else "Scores are of G itself.",
        "Intervals are Student's, of the mean over seeds, at 95 %; for FID of the mean logarithm.",
        f"Protocol: {'; '.join(protocols)}. Scores under another one do not compare with these." if protocols else "",
    ]
    return f"<p>{html.escape(' '.join(filter(None, sentences)))}</p>"


def _table(header, rows, heroes=()):
    """An HTML table; rows whose number is in heroes are emphasised."""
    lines = ["<tr>" + "".join(f"<th>{html.escape(str(cell))}</th>" for cell in header) + "</tr>"]
    for i, row in enumerate(rows):
        cells = "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row)
        lines.append(f'<tr class="hero">{cells}</tr>' if i in heroes else f"<tr>{cells}</tr>")
    return '<div class="table"><table>\n' + "\n".join(lines) + "\n</table></div>"


def _summary(study, results):
    """A row a method: each metric's mean in every setting, and what went wrong."""
    groups = by([r for r in results if r.last], "method", "setting")
    metric = study.metrics[-1] if "fid" not in study.metrics else "fid"
    words, more_is_better = METRICS[metric]
    rows, sortable = [], []
    for method in study.methods:
        cells, means = [], []
        for setting in study.settings:
            values = [r.last[metric] for r in groups.get((method, setting), []) if metric in r.last]
            found = interval(values, logarithmic=metric == "fid")
            spread = f" ({number(found.low)} to {number(found.high)})" if found and found.low < found.high else ""
            cells.append(f"{number(found.mean)}{spread}" if found else "-")
            means += [found.mean] if found else []
        worst = (min if more_is_better else max)(means) if means else None
        own = [r for r in results if r.run.method == method]
        wrong = [
            f"{n} {state}" for state in ("diverged", "failed") if (n := sum(r.outcome.state == state for r in own))
        ]
        rows.append([METHODS[method].label, *cells, number(worst) if means else "-", ", ".join(wrong) or "-"])
        sortable.append((worst is None, (-1 if more_is_better else 1) * (worst or 0)))
    order = sorted(range(len(rows)), key=sortable.__getitem__)
    heroes = [place for place, i in enumerate(order) if study.methods[i] == HERO]
    header = ["method", *(f"setting {setting}" for setting in study.settings), "worst", "not finished"]
    table = _table(header, [rows[i] for i in order], heroes)
    text = f"{words} at the last step, mean over seeds and its interval, ordered by each method's worst setting."
    return f"<h2>Every method in every setting</h2>\n{table}\n<p>{html.escape(text)}</p>"


def _figure(figure, path):
    picture = base64.b64encode(path.read_bytes()).decode("ascii")
    words, title = html.escape(figure.sentence), html.escape(figure.title)
    return (
        f'<h2>{title}</h2>\n<figure><img alt="{title}" src="data:image/png;base64,{picture}">'
        f"<figcaption>{words}</figcaption></figure>"
    )


def _audits(study, results):
    """The layers of one D under spectral norm and of one without, as evaluate.py --audit shows them."""
    parts = ["<h2>Two discriminators, layer by layer</h2>"]
    setting, seed = study_figures.shown_setting(study), study.seeds[0]
    for method in (HERO, "none", "batch"):
        chosen = [r for r in results if (r.run.method, r.run.setting, r.run.seed) == (method, setting, seed)]
        if len(parts) == 3 or not chosen or not chosen[0].final_audit:
            continue
        audit = chosen[0].final_audit
        rows = [
            [
                *(layer["name"], layer["kind"], " x ".join(map(str, layer["weight"]))),
                *(f"{layer[name]:.4f}" for name in ("sigma_power_iteration", "sigma_svd", "operator_norm")),
            ]
            for layer in audit["layers"]
        ]
        header = ["layer", "kind", "weight", "sigma, power iteration", "sigma, SVD", "norm as a map"]
        off = max(abs(layer["sigma_svd"] - 1) for layer in audit["layers"])
        text = (
            f"{METHODS[method].label}, setting {setting}, seed {seed}: the largest singular value of the reshaped "
            f"weight is off 1 by {off:.3f} at most. D is no steeper than {number(audit['upper_bound'])}, the product "
            f"of the norms, and was seen at {number(audit['lower_bound'])} on images, samples and between them."
        )
        parts.append(f"{_table(header, rows)}\n<p>{html.escape(text)}</p>")
    return "\n".join(parts if len(parts) > 1 else [])


def _runs(results):
    """The runs that are not finished, with the reason; where the numbers are."""
    rest = [r for r in results if r.outcome.state != "finished"]
    text = "<h2>The runs</h2>\n<p>Every number is in <code>results.csv</code>, a line a run.</p>"
    if not rest:
        return text + "\n<p>All runs that were started are finished.</p>"
    rows = [[r.run.name, r.outcome.state, f"{r.outcome.step:,}", r.outcome.message or "-"] for r in rest]
    return text + "\n" + _table(["run", "outcome", "step", "why"], rows)
