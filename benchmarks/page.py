"""The tables and the picture of docs/performance.md, from the measurements of step_time.py."""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from training.reporting.rendering import render
from utils.plots import pyplot

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE, PICTURE = DOCS / "performance.md", DOCS / "performance.png"


def table(head, rows):
    return render("table.md", head=head, rows=rows)


def percent(share):
    return f"{100 * share:.1f} %"


def tables(report):
    """The measured parts of the page, by the names of their places in it."""
    cases, limit = report["cases"], report["machine"]
    steps = []
    for name, case in cases.items():
        for side in ("plain", "fast"):
            found, ratio = case[side], case["ratio"] if side == "fast" else ""
            share = percent(found["share_of_matmul_peak"])
            peak = f"{found['peak_MiB']:,}"
            steps.append([name, side, found["seconds"], found["images_per_second"], share, peak, ratio])
    parts = [
        [name, *(percent(case["fast"][p]) for p in ("spectral norm", "data", "optimizers"))]
        for name, case in cases.items()
    ]
    kinds = next(iter(cases.values()))["fast"]["profile"]
    profiles = [[name, *(percent(case["fast"]["profile"][kind]) for kind in kinds)] for name, case in cases.items()]
    sampling = [
        [
            name,
            *(case["sampling"][f"{side}_images_per_second"] for side in ("plain", "fast")),
            case["sampling"]["ratio"],
        ]
        for name, case in cases.items()
    ]
    grown = [
        [name, value, measured["seconds"], f"{measured['peak_MiB']:,}"]
        for name, points in report["growth"].items()
        for value, measured in points
    ]
    run = [[f"{step:,}", m["seconds"], f"{m['peak_MiB']:,}"] for step, m in report["long_run"].items()]
    return {
        "machine": f"{limit['threads']} threads; {limit['matmul_GFLOPS']} GFLOP/s in a square float32 product, "
        f"{limit['copy_GB_per_s']} GB/s in a copy.\n",
        "steps": table(["case", "side", "s a step", "images/s", "of the matmul peak", "peak MiB", "ratio"], steps),
        "parts": table(["case", "spectral norm", "data", "optimizers"], parts),
        "profile": table(["case", *kinds], profiles),
        "sampling": table(["case", "plain, images/s", "folded, images/s", "ratio of times"], sampling),
        "growth": table(["what grows", "value", "s a step", "peak MiB"], grown),
        "long_run": table(["after steps", "s a step", "peak MiB"], run),
    }


def write_page(report):
    """Put the measured tables into their places in docs/performance.md, and draw its picture."""
    page = PAGE.read_text(encoding="utf-8")
    for name, text in tables(report).items():
        place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        page = place.sub(lambda match, text=text: match[1] + text + match[2], page)
    PAGE.write_text(page, encoding="utf-8")
    figure = pyplot().Figure(figsize=(12, 5.5), layout="constrained")
    for column, (axes, (name, points)) in enumerate(
        zip(figure.subplots(2, len(report["growth"]), squeeze=False).T, report["growth"].items())
    ):
        values = [value for value, _ in points]
        for row, (key, label) in enumerate((("seconds", "seconds a step"), ("peak_MiB", "peak memory, MiB"))):
            costs = [measured[key] for _, measured in points]
            axes[row].plot(values, costs, marker="o")
            axes[row].set(xlabel=name, ylabel=label if column == 0 else None, ylim=(0, 1.1 * max(costs)), xticks=values)
            axes[row].grid(alpha=0.3)
    figure.suptitle("What a step costs: ResNet of width 32 (16 over the image size), 32 pixels, batch 32, n_dis 1")
    figure.savefig(PICTURE, dpi=110)
