"""The figures of D: spectra (Miyato et al. 2018, figure 3), outputs, gradients, slope."""

from collections.abc import Callable, Sequence
from operator import methodcaller
from typing import Any

import numpy as np

from .drawing import (
    COLOURS,
    Figure,
    Panel,
    cell,
    legend_of_methods,
    name_rows,
    over_training,
    panels,
    shown_setting,
    table_of_methods,
    width_of,
)
from .grid import Study
from .results import Result, by, interval, mean, stable_rank

Audits = dict[str, list[dict[str, Any]]]  # by method


def final_audits(results: Sequence[Result]) -> Audits:
    """The audits of runs at the end of training, of the methods that have some."""
    groups = by([result for result in results if result.final_audit], "method")
    return {method: [audit for result in its if (audit := result.final_audit)] for method, its in groups.items()}


def ranks_used(results: Sequence[Result]) -> dict[str, float]:
    """{method: how much of its rank D uses after training (see results.summed()), the mean over its runs}."""
    found = {method: mean(audit["rank_used"] for audit in audits) for method, audits in final_audits(results).items()}
    return {method: share for method, share in found.items() if share is not None}


# ---- Spectra -------------------------------------------------------------------------------------------------------


def _layers(results: Sequence[Result]) -> tuple[list[tuple[int, Any]], list[tuple[int, Any]]]:
    """D's layers as [(number, layer)], and those of them with more than one singular value."""
    layers = next((list(enumerate(audit["layers"])) for r in results for audit in r.audits.values()), [])
    return layers, [(i, layer) for i, layer in layers if len(layer["singular_values"]) > 1]


def singular_values(study: Study, results: Sequence[Result]) -> Figure:
    """The singular values of each layer's weight after training, relative to the largest (the paper's figure 3)."""
    _, matrices = _layers(results)
    figure, axes = panels(len(matrices), 2, 2.3)
    for axis, (i, layer) in zip(axes, matrices):
        for method, audits in final_audits(results).items():
            spectra = [np.array(audit["layers"][i]["singular_values"]) for audit in audits]
            found = np.array([values / values[0] for values in spectra if values[0] > 0])
            if len(found):
                x, width = np.arange(1, found.shape[1] + 1), width_of(method)
                axis.plot(x, found.mean(axis=0), color=COLOURS[method], linewidth=width, zorder=1 + width)
        title = f"{layer['name']}: {layer['kind']}, {' x '.join(map(str, layer['weight']))}"
        axis.set_title(title, fontsize=10)
        axis.set(ylim=(0, 1.03), xlabel="number of the singular value", ylabel="relative to the largest")
    legend_of_methods(figure, study.methods)
    title = f"Singular values of D's weights, setting {shown_setting(study)}"
    return Figure("singular_values", title, figure)


def spectra_over_training(study: Study, results: Sequence[Result]) -> Figure:
    """The largest singular value of each layer, and the stable rank of those that have one, over training."""
    layers, matrices = _layers(results)
    shown = [Panel(f"{layer['name']}: largest singular value", _of_layer(i, max)) for i, layer in layers]
    shown += [Panel(f"{layer['name']}: stable rank", _of_layer(i, stable_rank), "linear") for i, layer in matrices]
    title = f"Singular values over training, setting {shown_setting(study)}"
    return Figure("singular_values_over_training", title, over_training(study, results, shown, 2.0))


def _of_layer(i: int, measure: Callable[[list[float]], float]) -> Callable[[Result], dict[int, float]]:
    """What gives {step: measure of the singular values of layer i} of a result."""
    return lambda r: {step: measure(audit["layers"][i]["singular_values"]) for step, audit in r.audits.items()}


# ---- Outputs, gradients, slope -------------------------------------------------------------------------------------


def _gap(result: Result) -> dict[int, float]:
    """{step: D(real) - D(fake)}."""
    fake = result.series("fake_logits")
    return {step: real - fake[step] for step, real in result.series("real_logits").items() if step in fake}


DYNAMICS = (
    Panel("D(real) - D(fake)", _gap, "symlog"),
    Panel("accuracy of D", methodcaller("series", "accuracy_D"), "linear"),
    Panel("gradient norm of G", methodcaller("series", "grad_norm_G")),
    Panel("gradient norm at D's input", methodcaller("series", "grad_norm_input")),
)
SLOPE = (
    Panel("bound of D's slope", methodcaller("series", "upper_bound")),
    Panel("steepest gradient seen", methodcaller("series", "lower_bound")),
)
AUDITED = ("upper_bound", "lower_bound", "largest_sigma", "rank_used")  # the columns of the table


def dynamics(study: Study, results: Sequence[Result]) -> Figure:
    """D(real) - D(fake), D's accuracy and the gradient norms of G and at D's input, over time."""
    title = f"D and G during training, setting {shown_setting(study)}"
    return Figure("dynamics", title, over_training(study, results, DYNAMICS, 2.5))


def slope_over_training(study: Study, results: Sequence[Result]) -> Figure:
    """The bound of D's slope and the steepest gradient seen, over training."""
    title = f"D's slope over training, setting {shown_setting(study)}"
    return Figure("slope_over_training", title, over_training(study, results, SLOPE, 2.5))


def lipschitz(study: Study, results: Sequence[Result]) -> Figure:
    """For each method what its layers' norms allow of D's slope, and the steepest gradient that was seen."""
    figure, (axis,) = panels(1, 1, 0.3 * len(study.methods) + 1.1)
    rows = {}
    for method, audits in final_audits(results).items():
        found = {name: [audit[name] for audit in audits if audit[name] is not None] for name in AUDITED}
        spreads = {name: interval(values, logarithmic=name != "rank_used") for name, values in found.items()}
        bounds, seen, row, colour = (
            found["upper_bound"],
            found["lower_bound"],
            study.methods.index(method),
            COLOURS[method],
        )
        axis.plot(seen, [row] * len(seen), "o", ms=4, mew=0, alpha=0.5, color=colour)
        axis.plot(bounds, [row] * len(bounds), "|", ms=9, mew=1.2, alpha=0.7, color=colour)
        means = [spread.mean for name in AUDITED[:2] if (spread := spreads[name])]
        axis.plot(means, [row] * len(means), color=colour, linewidth=width_of(method))
        held = sum(low <= high * 1.0001 for low, high in zip(seen, bounds))
        rows[method] = [*map(cell, spreads.values()), f"{held} of {len(bounds)}"]
    axis.set_xscale("log")
    name_rows(axis, study.methods)
    axis.set_xlabel(
        "slope of D in every run: steepest gradient seen (dots), upper bound (strokes)\nlines join the geometric means"
    )
    header = ["bound of D's slope", "steepest gradient seen", "largest singular value", "rank used", "bound held"]
    table = table_of_methods(header, rows)
    return Figure("lipschitz", "What bounds D's slope, and its slope", figure, table)
