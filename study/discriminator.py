"""The figures of what happens in D: spectra (Miyato et al. 2018, figure 3), outputs, gradients, slope."""

import functools
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .drawing import COLOURS, HERO, Figure, band, extremes, name_of, name_rows, number, panels, shown_setting, width_of
from .grid import Study
from .results import Result, by, interval, stable_rank

NO_AUDIT = "No finished run has been audited yet."


def _final_audits(results: Sequence[Result]) -> dict[str, list[dict[str, Any]]]:
    """{method: the audits of its runs at the end of training}, of the methods that have some."""
    found: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        if audit := result.final_audit:
            found.setdefault(result.run.method, []).append(audit)
    return found


def _layers(results: Sequence[Result]) -> tuple[list[tuple[int, Any]], list[tuple[int, Any]]]:
    """D's layers as [(number, layer)], and those of them with more than one singular value."""
    audit: dict[str, Any] = next((audit for result in results for audit in result.audits.values()), {"layers": []})
    layers = list(enumerate(audit["layers"]))
    return layers, [(i, layer) for i, layer in layers if len(layer["singular_values"]) > 1]


def ranks_used(results: Sequence[Result]) -> dict[str, float]:
    """{method: how much of its rank D uses after training (see results.summed()), the mean over its runs}."""
    found = {}
    for method, audits in _final_audits(results).items():
        if shares := [audit["rank_used"] for audit in audits if audit["rank_used"] is not None]:
            found[method] = statistics.fmean(shares)
    return found


def singular_values(study: Study, results: Sequence[Result]) -> Figure:
    """The singular values of each layer's weight after training, relative to the largest (the paper's figure 3)."""
    _, matrices = _layers(results)
    figure, axes = panels(len(matrices), 2, 2.3, methods=study.methods)
    for axis, (i, layer) in zip(axes, matrices):
        for method, audits in _final_audits(results).items():
            spectra = [np.array(audit["layers"][i]["singular_values"]) for audit in audits]
            found = np.array([values / values[0] for values in spectra if values[0] > 0])
            if len(found):
                x, width = np.arange(1, found.shape[1] + 1), width_of(method)
                axis.plot(x, found.mean(axis=0), color=COLOURS[method], linewidth=width, zorder=1 + width)
        title = f"{layer['name']}: {layer['kind']}, {' x '.join(map(str, layer['weight']))}"
        axis.set_title(title, fontsize=10)
        axis.set(ylim=(0, 1.03), xlabel="number of the singular value", ylabel="relative to the largest")
    text = NO_AUDIT
    if shares := ranks_used(results):
        words = extremes(shares, "most for", "least for", lambda share: f"{share:.0%}")
        text = (
            f"How much of its rank D uses (stable rank over full rank, mean over these layers): {words}. The paper "
            "(section 3) expects few directions of weight clipping and weight norm."
        )
    return Figure("singular_values", f"Singular values of D's weights, setting {shown_setting(study)}", figure, text)


def spectra_over_training(study: Study, results: Sequence[Result]) -> Figure:
    """The largest singular value of each layer, and the stable rank of those that have one, over training."""
    layers, matrices = _layers(results)
    groups = by(results, "method")
    shown: list[tuple[int, Any, Any, str]] = [(i, layer, max, "largest singular value") for i, layer in layers]
    shown += [(i, layer, stable_rank, "stable rank") for i, layer in matrices]
    figure, axes = panels(len(shown), 2, 2.0, over_training=True, methods=study.methods, sharex=True)
    for axis, (i, layer, measure, words) in zip(axes, shown):
        values = functools.partial(_of_layer, i=i, measure=measure)
        for (method,), group in groups.items():
            band(axis, group, values, COLOURS[method], width_of(method))
        axis.set_title(f"{layer['name']}: {words}", fontsize=10)
        if measure is max:
            axis.set_yscale("log")
    ranges = {}
    for (method,), group in groups.items():
        sigmas = [layer["sigma_svd"] for r in group if r.finished for a in r.audits.values() for layer in a["layers"]]
        if sigmas:
            ranges[method] = min(sigmas), max(sigmas)
    text = NO_AUDIT
    if ranges:
        tops = {method: top for method, (_, top) in ranges.items()}
        text = f"The largest singular value of any layer at any audit: {extremes(tops, 'highest for', 'lowest for')}."
    if HERO in ranges:
        text += " Under {} all largest ones lie between {:.3f} and {:.3f}.".format(name_of(HERO), *ranges[HERO])
    title = f"Singular values over training, setting {shown_setting(study)}"
    return Figure("singular_values_over_training", title, figure, text)


def _of_layer(result: Result, i: int, measure: Callable[[list[float]], float]) -> dict[int, float]:
    """{step: measure of the singular values of layer i}."""
    return {step: measure(audit["layers"][i]["singular_values"]) for step, audit in result.audits.items()}


# ---- Outputs and gradients -----------------------------------------------------------------------------------------


def _gap(result: Result) -> dict[int, float]:
    """{step: D(real) - D(fake)}."""
    fake = dict(result.values("fake_logits"))
    return {step: real - fake[step] for step, real in result.values("real_logits") if step in fake}


DYNAMICS = {  # {name: (words, scale, values of a result)}
    "gap": ("D(real) - D(fake)", "symlog", _gap),
    "accuracy": ("accuracy of D", "linear", lambda result: dict(result.values("accuracy_D"))),
    "G": ("gradient norm of G", "log", lambda result: dict(result.values("grad_norm_G"))),
    "input": ("gradient norm at D's input", "log", lambda result: dict(result.values("grad_norm_input"))),
}


def dynamics(study: Study, results: Sequence[Result]) -> Figure:
    """D(real) - D(fake), D's accuracy and the gradient norms of G and at D's input, over time."""
    groups = by(results, "method")
    figure, axes = panels(len(DYNAMICS), 2, 2.5, over_training=True, methods=study.methods, sharex=True)
    ends: dict[str, dict[str, float]] = {name: {} for name in DYNAMICS}
    for axis, (name, (words, scale, values)) in zip(axes, DYNAMICS.items()):
        for (method,), group in groups.items():
            steps, found = band(axis, group, values, COLOURS[method], width_of(method))
            if len(steps):
                ends[name][method] = found[:, steps > 0.8 * steps[-1]].mean()
        axis.set_title(words, fontsize=10)
        axis.set_yscale(scale, **({"linthresh": 1} if scale == "symlog" else {}))
    title = f"D and G during training, setting {shown_setting(study)}"
    return Figure("dynamics", title, figure, _on_dynamics(ends))


def _on_dynamics(ends: dict[str, dict[str, float]]) -> str:
    if not all(ends.values()):
        return "No run is finished yet."
    text = (
        f"Means over the last fifth of training. D(real) - D(fake): {extremes(ends['gap'], 'most for', 'least for')}. "
        f"D's gradient at its input: {extremes(ends['input'], 'steepest for', 'flattest for')}. "
        f"Gradient norm of G: {extremes(ends['G'], 'most for', 'least for')}."
    )
    if HERO in ends["accuracy"]:
        text += f" Under {name_of(HERO)} D is right about {ends['accuracy'][HERO]:.0%} of images."
    return text


# ---- The slope of D ------------------------------------------------------------------------------------------------


def slope_over_training(study: Study, results: Sequence[Result]) -> Figure:
    """The bound of D's slope and the steepest gradient seen, over training."""
    groups = by(results, "method")
    names = {"upper_bound": "bound of D's slope", "lower_bound": "steepest gradient seen"}
    figure, axes = panels(len(names), 2, 2.5, over_training=True, methods=study.methods, sharex=True)
    growth: dict[str, float] = {}
    for axis, (name, words) in zip(axes, names.items()):
        for (method,), group in groups.items():
            steps, found = band(axis, group, functools.partial(_audited, name=name), COLOURS[method], width_of(method))
            if name == "lower_bound" and len(steps) > 1:
                growth[method] = float(np.exp(np.log(np.maximum(found[:, -1] / found[:, 0], 1e-12)).mean()))
        axis.set_title(words, fontsize=10)
        axis.set_yscale("log")
    text = NO_AUDIT
    if growth:
        words = extremes(growth, "most for", "least for", lambda factor: f"{number(factor)} times")
        text = f"By how much the steepest gradient grew from the first audit to the last: {words}."
    return Figure("slope_over_training", f"D's slope over training, setting {shown_setting(study)}", figure, text)


def _audited(result: Result, name: str) -> dict[int, float]:
    """{step: a number of the audit}, where there is one."""
    return {step: audit[name] for step, audit in result.audits.items() if audit[name] is not None}


def lipschitz(study: Study, results: Sequence[Result]) -> Figure:
    """For each method what its layers' norms allow of D's slope, and the steepest gradient that was seen."""
    figure, (axis,) = panels(1, 1, 0.3 * len(study.methods) + 1.1)
    bounded = {
        method: [audit for audit in audits if audit["upper_bound"] is not None]  # attention has no bound
        for method, audits in _final_audits(results).items()
    }
    slopes, final = {}, {method: audits for method, audits in bounded.items() if audits}
    for method, audits in final.items():
        row = study.methods.index(method)
        pairs = [(audit["lower_bound"], audit["upper_bound"]) for audit in audits]
        for lower, upper in pairs:
            axis.plot([lower], [row], "o", ms=4, mew=0, alpha=0.5, color=COLOURS[method])
            axis.plot([upper], [row], "|", ms=9, mew=1.2, alpha=0.7, color=COLOURS[method])
        slopes[method] = [spread.mean for values in zip(*pairs) if (spread := interval(values, True))]
        axis.plot(slopes[method], [row, row], color=COLOURS[method], linewidth=width_of(method))
    axis.set_xscale("log")
    name_rows(axis, study.methods)
    axis.set_xlabel(
        "slope of D in every run: steepest gradient seen (dots), upper bound (strokes)\nlines join the geometric means"
    )
    return Figure("lipschitz", "What bounds D's slope, and its slope", figure, _on_lipschitz(slopes, final))


def _on_lipschitz(slopes: dict[str, list[float]], final: dict[str, list[dict[str, Any]]]) -> str:
    if not slopes:
        return NO_AUDIT
    above = [audit["lower_bound"] <= audit["upper_bound"] * 1.0001 for audits in final.values() for audit in audits]
    text = f"The bound lies above the steepest gradient in {sum(above)} of {len(above)} audits."
    if HERO not in slopes:
        return text
    lower, upper = slopes[HERO]
    layers = [layer for audit in final[HERO] for layer in audit["layers"]]
    # A single row has one singular value, which is divided out exactly.
    off = [abs(layer["sigma_svd"] - 1) for layer in layers if len(layer["singular_values"]) > 1]
    text += f" Under {name_of(HERO)} the bound is {number(upper)} and the steepest gradient seen {number(lower)}"
    text += " (geometric means over runs)"
    if off:
        text += (
            f"; the largest singular value of a weight matrix is off 1 by {statistics.median(off):.3f} in the median "
            f"and by {max(off):.3f} at most, as one power iteration an update follows the weights with a lag"
        )
    if "none" in slopes:
        text += f". Without any normalization the bound is {number(slopes['none'][1])}"
    if "spectral_batch" in slopes:
        lower, beside = slopes["spectral_batch"]
        lifts = "voids it: its gains lift" if beside > upper else "leaves"
        text += (
            f". Batch norm beside spectral norm {lifts} the bound {'to' if beside > upper else 'at'} {number(beside)}, "
            f"and gradients of {number(lower)} were seen"
        )
    return text + "."
