"""Figures of D: spectra (Miyato et al. 2018, figure 3), outputs, gradients, slope."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from utils.plots import scaled

from .drawing import (
    COLOURS,
    Figure,
    Values,
    band,
    cell,
    legend_of_methods,
    line_of,
    name_rows,
    panels,
    shown_setting,
    table_of_methods,
)
from .grid import Study
from .results import Result, by, interval

Audits = dict[str, list[dict[str, Any]]]  # by method


def _gap(result: Result) -> dict[int, float]:
    """{step: D(real) - D(fake)}."""
    fake = result.series("fake_logits")
    return {step: real - fake[step] for step, real in result.series("real_logits").items() if step in fake}


Panel = tuple[str, Values, str]  # of lines over training: title, values and scale
OVER_TRAINING: dict[str, tuple[str, tuple[Panel, ...]]] = {  # {kind of a figure: (title, panels)}
    "dynamics": (
        "D and G during training",
        (
            ("D(real) - D(fake)", _gap, "symlog"),
            ("accuracy of D", "accuracy_D", "linear"),
            ("gradient norm of G", "grad_norm_G", "log"),
            ("gradient norm at D's input", "grad_norm_input", "log"),
        ),
    ),
    "singular_values_over_training": (
        "Singular values over training",
        (("largest singular value of a weight", "largest_sigma", "log"), ("rank used", "rank_used", "linear")),
    ),
    "slope_over_training": (
        "D's slope over training",
        (("bound of D's slope", "upper_bound", "log"), ("steepest gradient seen", "lower_bound", "log")),
    ),
}
AUDITED = ("upper_bound", "lower_bound", "largest_sigma", "rank_used")  # the columns of the table


def final_audits(results: Sequence[Result]) -> Audits:
    """The audits at the end of training, for methods that have any."""
    groups = by([result for result in results if result.final_audit], "method")
    return {method: [audit for result in its if (audit := result.final_audit)] for method, its in groups.items()}


def singular_values(study: Study, results: Sequence[Result]) -> Figure:
    """The singular values of each layer's weight after training, relative to the largest (figure 3)."""
    audit: dict[str, Any] = next((audit for r in results for audit in r.audits.values()), {"layers": []})
    matrices = [(i, layer) for i, layer in enumerate(audit["layers"]) if len(layer["singular_values"]) > 1]
    figure, axes = panels(len(matrices), 2, 2.3)
    for axis, (i, layer) in zip(axes, matrices):
        for method, audits in final_audits(results).items():
            spectra = [np.array(audit["layers"][i]["singular_values"]) for audit in audits]
            found = np.array([values / values[0] for values in spectra if values[0] > 0])
            if len(found):
                x = np.arange(1, found.shape[1] + 1)
                axis.plot(x, found.mean(axis=0), **(line := line_of(method)), zorder=1 + line["linewidth"])
        title = f"{layer['name']}: {layer['kind']}, {' x '.join(map(str, layer['weight']))}"
        axis.set_title(title, fontsize=10)
        axis.set(ylim=(0, 1.03), xlabel="index of the singular value", ylabel="relative to the largest")
    legend_of_methods(figure, study.methods)
    title = f"Singular values of D's weights, setting {shown_setting(study)}"
    return Figure("singular_values", title, figure)


def over_training(study: Study, results: Sequence[Result], kind: str) -> Figure:
    """One of the figures OVER_TRAINING: one line per method, with a band from the lowest to the highest run."""
    title, shown = OVER_TRAINING[kind]
    figure, axes = panels(len(shown), 2, 2.5, steps=True, sharex=True)
    groups = by(results, "method")
    for axis, (name, values, scale) in zip(axes, shown):
        for method, group in groups.items():
            band(axis, group, values, line_of(method))
        axis.set_title(name, fontsize=10)
        scaled(axis, scale)
    legend_of_methods(figure, study.methods)
    return Figure(kind, f"{title}, setting {shown_setting(study)}", figure)


def lipschitz(study: Study, results: Sequence[Result]) -> Figure:
    """The upper bound of D's slope and the steepest gradient seen, for each method."""
    figure, (axis,) = panels(1, 1, 0.3 * len(study.methods) + 1.1)
    rows = {}
    for method, audits in final_audits(results).items():
        found = {name: [audit[name] for audit in audits if audit[name] is not None] for name in AUDITED}
        spreads = {name: interval(values, logarithmic=name != "rank_used") for name, values in found.items()}
        bounds, seen = found["upper_bound"], found["lower_bound"]
        row, colour = study.methods.index(method), COLOURS[method]
        axis.plot(seen, [row] * len(seen), "o", ms=4, mew=0, alpha=0.5, color=colour)
        axis.plot(bounds, [row] * len(bounds), "|", ms=9, mew=1.2, alpha=0.7, color=colour)
        means = [spread.mean for name in AUDITED[:2] if (spread := spreads[name])]
        axis.plot(means, [row] * len(means), color=colour, linewidth=line_of(method)["linewidth"])
        held = sum(low <= high * 1.0001 for low, high in zip(seen, bounds))
        rows[method] = [*map(cell, spreads.values()), f"{held} of {len(bounds)}"]
    axis.set_xscale("log")
    name_rows(axis, study.methods)
    axis.set_xlabel(
        "slope of D in every run: steepest gradient seen (dots), upper bound (strokes)\nlines join the geometric means"
    )
    header = ["bound of D's slope", "steepest gradient seen", "largest singular value", "rank used", "bound held"]
    table = table_of_methods(header, rows)
    return Figure("lipschitz", "D's slope: upper bound and steepest gradient", figure, table)
