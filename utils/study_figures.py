"""The figures of a study and, under each, a sentence computed from the same numbers.

After Miyato et al. 2018: figures 1 and 2 (scores by setting and method), 3 (singular values), 10 (time of a step).
"""

import statistics
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .plots import pyplot, read_grid
from .study import METHODS, METRICS, SETTINGS
from .study_results import by, interval

WIDTH = 7.4  # inches: so narrow that a telephone, too, shows the text
HERO = "spectral"
STEPS = "step (updates of G)"
COLLAPSED = "the generator has collapsed"  # as diagnostics.warnings() says it
SAMPLES, OVERVIEW = 36, 9  # samples of a method's grid, and of a cell in the overview
PALETTE = ("tab:grey", "tab:blue", "tab:cyan", "tab:green", "tab:brown", "tab:purple", "tab:pink", "tab:olive")
COLOURS = dict(zip(METHODS, (*PALETTE, "goldenrod", "crimson", "darkorange")))


class Figure(NamedTuple):
    """A drawn figure: its file's name, its heading, matplotlib's figure, and what to see in it."""

    name: str
    title: str
    drawn: object
    sentence: str


def figures(study, results):
    """Draw all figures that there are results for; yields them in the order of the report."""
    for metric in study.metrics:
        yield scores(study, results, metric)
    for metric in study.metrics:
        yield curves(study, results, metric)
    shown = [result for result in results if result.run.setting == shown_setting(study)]
    yield spectra(study, shown)
    yield spectra_over_training(study, shown)
    yield dynamics(study, shown)
    yield lipschitz(study, results)
    yield samples(study, shown)
    yield overview(study, results)
    yield seconds(study, results)


def shown_setting(study):
    """The setting of figures that can show only one: C, which the paper itself takes for its CNN, where it is there."""
    return "C" if "C" in study.settings else study.settings[0]


def name_of(method):
    return METHODS[method].label


def number(value):
    """Three significant digits, in plain notation."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def times(count):
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _panels(count, columns, height, xlabel="", **options):
    """A figure with so many panels, and these; the axes that are not needed are removed."""
    rows = -(-count // columns)
    size = (WIDTH, height * rows + 0.5)
    figure, axes = pyplot().subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **options)
    for axis in axes.flat[count:]:
        axis.remove()
    for axis in axes.flat[max(0, count - columns) : count]:  # the lowest of each column, where it ends early too
        axis.xaxis.set_tick_params(labelbottom=True)
        axis.set_xlabel(xlabel, fontsize=10)
    return figure, list(axes.flat[:count])


def _legend(figure, methods, columns=4):
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=COLOURS[method], linewidth=3 if method == HERO else 2) for method in methods]
    figure.legend(handles, map(name_of, methods), loc="outside lower center", ncols=columns, frameon=False)


# ---- Scores --------------------------------------------------------------------------------------------------------


def scores(study, results, metric):
    """The last step's score of every run: a panel a setting, a row a method; dots are seeds, bars 95 % intervals."""
    words, more_is_better = METRICS[metric]
    logarithmic = metric == "fid"
    groups = by([result for result in results if metric in result.last], "setting", "method")
    figure, axes = _panels(len(study.settings), 2, 0.24 * len(study.methods) + 0.75, sharex=True, sharey=True)
    found = {}
    for axis, setting in zip(axes, study.settings):
        for row, method in enumerate(study.methods):
            group = groups.get((setting, method), [])
            whole = [result.last[metric] for result in group if result.outcome.state != "diverged"]
            broken = [result.last[metric] for result in group if result.outcome.state == "diverged"]
            axis.plot(whole, [row] * len(whole), "o", ms=4, alpha=0.6, mew=0, color=COLOURS[method])
            axis.plot(broken, [row] * len(broken), "x", ms=6, color=COLOURS[method])
            if spread := interval(whole, logarithmic):
                found[setting, method] = spread
                axis.plot([spread.low, spread.high], [row, row], color=COLOURS[method], linewidth=1.5)
                axis.plot([spread.mean], [row], "|", ms=11, mew=2.5, color=COLOURS[method])
        axis.set_title(_setting_title(setting), fontsize=10)
        axis.grid(alpha=0.3)
    every = [result.last[metric] for group in groups.values() for result in group]
    if logarithmic:
        axes[0].set_xscale("log")
        for axis in axes:
            _plain_ticks(axis.xaxis)
    if every:
        margin = (max(every) / max(min(every), 1e-3)) ** 0.07 if logarithmic else 0.07 * (max(every) - min(every))
        low, high = min(every), max(every)
        axes[0].set_xlim(*((low / margin, high * margin) if logarithmic else (low - margin, high + margin)))
    axes[0].set_yticks(range(len(study.methods)), map(name_of, study.methods))
    axes[0].invert_yaxis()
    for label, method in zip(axes[0].get_yticklabels(), study.methods):
        label.set_fontweight("bold" if method == HERO else "normal")
    better = "more is better" if more_is_better else "less is better"
    figure.supxlabel(f"{words} at the last step ({better})", fontsize=10)
    return Figure(f"{metric}_by_setting", f"{words} by setting and method", figure, _on_scores(study, found, metric))


def _plain_ticks(axis):
    """Numbers such as 30 and 100 on a logarithmic axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    axis.set_major_locator(LogLocator(subs=(1, 3)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter("")


def _setting_title(setting):
    found = SETTINGS[setting]
    return (
        f"{setting}: lr {found['lr_G']:g}, betas {found['betas'][0]:g}, {found['betas'][1]:g}, n_dis {found['n_dis']}"
    )


def _on_scores(study, found, metric):
    """Who is best where, in how many settings surely so, and who has the best worst setting."""
    words, more_is_better = METRICS[metric]
    sign = -1 if more_is_better else 1
    winners, sure = {}, 0
    for setting in study.settings:
        own = {method: spread for (where, method), spread in found.items() if where == setting}
        if not own:
            continue
        best = winners[setting] = min(own, key=lambda method: sign * own[method].mean)
        others = [spread for method, spread in own.items() if method != best]
        if more_is_better:
            sure += all(spread.high < own[best].low for spread in others)
        else:
            sure += all(spread.low > own[best].high for spread in others)
    if not winners:
        return "No run has been scored yet."
    each = ", ".join(f"{setting} {name_of(m)} ({number(found[setting, m].mean)})" for setting, m in winners.items())
    text = f"Best mean {words} by setting: {each}."
    seeds = len(study.seeds)
    if seeds > 1:
        text += f" In {sure} of {len(winners)} settings the best one's interval lies apart from all others'"
        text += f" ({seeds} seeds make wide intervals)." if seeds < 5 else "."
    worst = {}
    for method in study.methods:
        means = [found[setting, method].mean for setting in winners if (setting, method) in found]
        if len(means) == len(winners):
            worst[method] = max(means, key=lambda mean: sign * mean)
    if len(winners) > 1 and worst:
        order = sorted(worst, key=lambda method: sign * worst[method])
        text += f" Over all {len(winners)} settings {name_of(order[0])} has the best worst case"
        text += f" ({number(worst[order[0]])})"
        if HERO in order:
            place = order.index(HERO) + 1
            wins = sum(method == HERO for method in winners.values())
            text += f"; {name_of(HERO)} is number {place} of {len(order)} by that" if place > 1 else ""
            text += f", and best in {wins} of {len(winners)} settings"
        text += "."
    return text


def curves(study, results, metric):
    """A score over training: a panel a method, a line a setting, a band from the lowest to the highest seed."""
    words, _ = METRICS[metric]
    groups = by(results, "method", "setting")
    figure, axes = _panels(len(study.methods), 3, 1.6, STEPS, sharex=True, sharey=True)
    colours = dict(zip(study.settings, pyplot().get_cmap("viridis")(np.linspace(0, 0.92, len(study.settings)))))
    for axis, method in zip(axes, study.methods):
        for setting in study.settings:
            _band(axis, groups.get((method, setting), []), metric, colours[setting])
        axis.set_title(name_of(method), fontsize=10, fontweight="bold" if method == HERO else "normal")
        axis.grid(alpha=0.3)
        if metric == "fid":
            axis.set_yscale("log")
            _plain_ticks(axis.yaxis)
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colours[setting], linewidth=2) for setting in study.settings]
    names = [f"setting {setting}" for setting in study.settings]
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False, fontsize=9)
    figure.supylabel(words, fontsize=10)
    return Figure(f"{metric}_curves", f"{words} over training", figure, _on_curves(study, results, metric))


def _series(results, name):
    """The steps that all of these runs have a value at, and the values (runs, steps)."""
    found = [dict(result.values(name)) for result in results]
    found = [values for values in found if values]
    steps = sorted(set.intersection(*map(set, found))) if found else []
    return steps, np.array([[values[step] for step in steps] for values in found])


def _band(axis, results, name, colour, width=1.5):
    steps, values = _series(results, name)
    if steps:
        axis.plot(steps, values.mean(axis=0), color=colour, linewidth=width)
        axis.fill_between(steps, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.18, linewidth=0)


def _on_curves(study, results, metric):
    """How much of the best step's score is left at the last one."""
    words, more_is_better = METRICS[metric]
    kept = {}
    for method in study.methods:
        pairs = [
            (result.last[metric], (max if more_is_better else min)(value for _, value in result.values(metric)))
            for result in results
            if result.run.method == method and metric in result.last and result.values(metric)
        ]
        ratios = [last / best for last, best in pairs if best > 0]
        if ratios:
            kept[method] = statistics.median(ratios)
    if not kept:
        return "No run has been scored yet."
    order = sorted(kept, key=kept.get, reverse=more_is_better)
    text = (
        f"What is lost after the best step, as the median over settings and seeds of the last {words} divided by the "
        f"best: least by {name_of(order[0])} ({kept[order[0]]:.2f}), most by {name_of(order[-1])} "
        f"({kept[order[-1]]:.2f})"
    )
    return text + (
        f"; {name_of(HERO)} {kept[HERO]:.2f}." if HERO in kept and HERO not in (order[0], order[-1]) else "."
    )


# ---- What happens in D ---------------------------------------------------------------------------------------------


def _matrices(results):
    """The numbers and names of D's layers with more than one singular value."""
    audit = next((result.final_audit for result in results if result.final_audit), None)
    layers = audit["layers"] if audit else []
    return [(i, layer) for i, layer in enumerate(layers) if len(layer["singular_values"]) > 1]


def _layer_title(layer):
    return f"{layer['name']}: {layer['kind']}, {' x '.join(map(str, layer['weight']))}"


def stable_rank(values):
    """|W|_F^2 / sigma^2, from 1 to the rank: how many directions a weight uses (Rudelson and Vershynin 2007)."""
    values = np.asarray(values)
    return float((values**2).sum() / values[0] ** 2) if values[0] > 0 else 0.0


def spectra(study, results):
    """The singular values of each layer's weight after training, relative to the largest (the paper's figure 3)."""
    layers = _matrices(results)
    groups = by([result for result in results if result.final_audit], "method")
    figure, axes = _panels(max(1, len(layers)), 2 if len(layers) > 1 else 1, 2.3)
    shares = {}
    for axis, (i, layer) in zip(axes, layers):
        for method in study.methods:
            found = [result.final_audit["layers"][i]["singular_values"] for result in groups.get((method,), [])]
            found = np.array([np.array(values) / values[0] for values in found if values[0] > 0])
            if len(found):
                x = np.arange(1, found.shape[1] + 1)
                width = 2.8 if method == HERO else 1.3
                axis.plot(x, found.mean(axis=0), color=COLOURS[method], linewidth=width, zorder=3 if width > 2 else 2)
                ranks = [stable_rank(values) / len(values) for values in found]
                shares.setdefault(method, []).append(statistics.fmean(ranks))
        axis.set_title(_layer_title(layer), fontsize=10)
        axis.set(ylim=(0, 1.03), xlabel="number of the singular value", ylabel="relative to the largest")
        axis.grid(alpha=0.3)
    _legend(figure, study.methods)
    title = f"Singular values of D's weights, setting {shown_setting(study)}"
    return Figure("singular_values", title, figure, _on_spectra(shares))


def _on_spectra(shares):
    means = {method: statistics.fmean(values) for method, values in shares.items()}
    if not means:
        return "No audit has been made yet."
    order = sorted(means, key=means.get, reverse=True)
    text = (
        "How much of its rank D uses (stable rank over full rank, mean over these layers): most under "
        f"{name_of(order[0])} ({means[order[0]]:.0%}), least under {name_of(order[-1])} ({means[order[-1]]:.0%})"
    )
    if HERO in means and HERO not in (order[0], order[-1]):
        text += f"; {name_of(HERO)} is number {order.index(HERO) + 1} of {len(order)} ({means[HERO]:.0%})"
    return text + ". The paper (section 3) expects few directions of weight clipping and weight norm."


def spectra_over_training(study, results):
    """The largest singular value and the stable rank of each layer, over training."""
    layers = _matrices(results)
    groups = by([result for result in results if result.audits], "method")
    figure, axes = _panels(2 * max(1, len(layers)), 2, 2.1, STEPS, sharex=True)
    largest = {}
    for row, (i, layer) in enumerate(layers):
        for method in study.methods:
            for column, measure in enumerate((lambda values: values[0], stable_rank)):
                lines = [
                    {step: measure(audit["layers"][i]["singular_values"]) for step, audit in result.audits.items()}
                    for result in groups.get((method,), [])
                ]
                steps = sorted(set.intersection(*map(set, lines))) if lines else []
                values = np.array([[line[step] for step in steps] for line in lines])
                if not steps:
                    continue
                axis, width = axes[2 * row + column], 2.8 if method == HERO else 1.3
                axis.plot(steps, values.mean(axis=0), color=COLOURS[method], linewidth=width, marker="o", ms=2.5)
                axis.fill_between(
                    steps, values.min(axis=0), values.max(axis=0), color=COLOURS[method], alpha=0.15, linewidth=0
                )
                if column == 0:
                    largest.setdefault(method, []).append((values[:, 0].max(), values.max(), values[:, 1:].min()))
        for column, words in enumerate(("largest singular value", "stable rank")):
            axes[2 * row + column].set_title(f"{layer['name']}: {words}", fontsize=10)
            axes[2 * row + column].grid(alpha=0.3)
        axes[2 * row].set_yscale("log")
    _legend(figure, study.methods)
    title = f"Singular values over training, setting {shown_setting(study)}"
    return Figure("singular_values_over_training", title, figure, _on_growth(largest))


def _on_growth(largest):
    if not largest:
        return "No audit has been made yet."
    tops = {method: max(top for _, top, _ in values) for method, values in largest.items()}
    most = max(tops, key=tops.get)
    text = f"The largest singular value of any layer rises highest under {name_of(most)} ({number(tops[most])})"
    if HERO in largest and most != HERO:
        low, high = min(low for *_, low in largest[HERO]), tops[HERO]
        text += f"; under {name_of(HERO)} all lie between {low:.3f} and {high:.3f} at every audit"
    return text + "."


def dynamics(study, results):
    """D(real) - D(fake), the gradient norms of G and at D's input, and D's accuracy, over time."""
    panels = [
        ("gap", "D(real) - D(fake)", "symlog"),
        ("accuracy_D", "accuracy of D", "linear"),
        ("grad_norm_G", "gradient norm of G", "log"),
        ("grad_norm_input", "gradient norm at D's input", "log"),
    ]
    groups = by(results, "method")
    figure, axes = _panels(4, 2, 2.5, STEPS, sharex=True)
    last = {}
    for axis, (name, words, scale) in zip(axes, panels):
        for method in study.methods:
            group = [_with_gap(result) for result in groups.get((method,), [])]
            _band(axis, group, name, COLOURS[method], 2.8 if method == HERO else 1.3)
            steps, values = _series(group, name)
            if steps:
                last[name, method] = values[:, -max(1, len(steps) // 5) :].mean()
        axis.set_title(words, fontsize=10)
        axis.set_yscale(scale, **({"linthresh": 1} if scale == "symlog" else {}))
        axis.grid(alpha=0.3)
    _legend(figure, study.methods)
    title = f"D and G during training, setting {shown_setting(study)}"
    return Figure("dynamics", title, figure, _on_dynamics(study, last))


def _with_gap(result):
    lines = [
        line | {"gap": line["real_logits"] - line["fake_logits"]}
        if line.get("real_logits") is not None and line.get("fake_logits") is not None
        else line
        for line in result.stats
    ]
    return result._replace(stats=lines)


def _on_dynamics(study, last):
    def end(name, pick):
        own = {method: value for (what, method), value in last.items() if what == name}
        method = pick(own, key=own.get)
        return f"{name_of(method)} ({number(own[method])})"

    if not last:
        return "No statistics have been written yet."
    text = (
        f"In the last fifth of training D separates most under {end('gap', max)} and least under {end('gap', min)}; "
        f"D's gradient at its input is steepest under {end('grad_norm_input', max)} and flattest under "
        f"{end('grad_norm_input', min)}, G's gradient largest under {end('grad_norm_G', max)}"
    )
    if ("grad_norm_input", HERO) in last:
        text += (
            f". Under {name_of(HERO)} they are {number(last['gap', HERO])}, {number(last['grad_norm_input', HERO])} "
            f"and {number(last['grad_norm_G', HERO])}, and D is right about {last['accuracy_D', HERO]:.0%} of images"
        )
    return text + "."


def lipschitz(study, results):
    """For each method what its layers' norms allow of D's slope, and the steepest gradient that was seen."""
    groups = by([result for result in results if result.final_audit], "method")
    figure, (axis,) = _panels(1, 1, 0.3 * len(study.methods) + 1.1)
    bounds, above = {}, []
    for row, method in enumerate(study.methods):
        audits = [result.final_audit for result in groups.get((method,), [])]
        if not audits:
            continue
        pairs = [(audit["lower_bound"], audit["upper_bound"]) for audit in audits]
        above += [lower <= upper * 1.0001 for lower, upper in pairs]
        bounds[method] = [interval(values, True).mean if min(values) > 0 else 0.0 for values in zip(*pairs)]
        for lower, upper in pairs:
            axis.plot([lower], [row], "o", ms=4, mew=0, alpha=0.5, color=COLOURS[method])
            axis.plot([upper], [row], "|", ms=9, mew=1.2, alpha=0.7, color=COLOURS[method])
        axis.plot(bounds[method], [row, row], color=COLOURS[method], linewidth=3 if method == HERO else 1.5)
    axis.set_xscale("log")
    axis.set_yticks(range(len(study.methods)), map(name_of, study.methods))
    axis.invert_yaxis()
    axis.set_xlabel(
        "slope of D in every run: steepest gradient seen (dots), upper bound (strokes)\nlines join the geometric means"
    )
    axis.grid(alpha=0.3)
    return Figure("lipschitz", "What bounds D's slope, and its slope", figure, _on_lipschitz(bounds, above))


def _on_lipschitz(bounds, above):
    if not bounds:
        return "No audit has been made yet."
    text = f"The bound lies above the steepest gradient in {sum(above)} of {len(above)} audits."
    if HERO in bounds:
        lower, upper = bounds[HERO]
        text += (
            f" Under {name_of(HERO)} D cannot be steeper than {number(upper)} (geometric mean over runs), and was seen "
            f"at {number(lower)}"
        )
        if "none" in bounds:
            text += f"; without any normalization the bound is {number(bounds['none'][1])}"
        if "spectral_batch" in bounds:
            lower, upper = bounds["spectral_batch"]
            text += (
                f"; batch norm beside spectral norm voids it: its gains lift the bound to {number(upper)}, and "
                f"gradients of {number(lower)} were seen"
            )
        text += "."
    return text


# ---- Samples and time ----------------------------------------------------------------------------------------------


def _images(result, count):
    """The first samples of a run's last grid: (n, H, W[, C]) uint8, None where there is none."""
    paths = sorted((result.run.run_dir / "samples").glob("step_*.png"), key=lambda path: int(path.stem.split("_")[1]))
    return read_grid(paths[-1])[:count] if paths else None


def _tile(images, columns, gap):
    """Images (n, H, W[, C]) in rows, white between them."""
    rows = -(-len(images) // columns)
    height, width = images.shape[1:3]
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, *images.shape[3:]), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        canvas[top : top + height, left : left + width] = image
    return canvas


def _show(axis, images, columns):
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
    if images is None:
        axis.text(0.5, 0.5, "no samples", ha="center", va="center", fontsize=8, transform=axis.transAxes)
    else:
        gap = max(1, images.shape[1] // 8)
        axis.imshow(_tile(images, columns, gap), cmap="gray", vmin=0, vmax=255, interpolation="nearest")


def samples(study, results):
    """A grid of samples a method, drawn from the same z, of the first seed."""
    chosen = {r.run.method: r for r in results if r.run.seed == study.seeds[0]}
    figure, axes = _panels(len(study.methods), 3, 2.45)
    for axis, method in zip(axes, study.methods):
        result = chosen.get(method)
        _show(axis, _images(result, SAMPLES) if result else None, 6)
        score = f"\nFID {number(result.last['fid'])}" if result and result.last else ""
        axis.set_title(f"{name_of(method)}{score}", fontsize=10, fontweight="bold" if method == HERO else "normal")
    title = f"Samples of the same z, setting {shown_setting(study)}, seed {study.seeds[0]}"
    known = {m: r.last["fid"] for m, r in chosen.items() if r.last}
    text = "No run has been scored yet."
    if known:
        order = sorted(known, key=known.get)
        text = (
            f"Judge by eye what the scores say: the lowest FID here is that of {name_of(order[0])} "
            f"({number(known[order[0]])}), the highest that of {name_of(order[-1])} ({number(known[order[-1]])}). "
            "Nothing was selected."
        )
    return Figure("samples", title, figure, text)


def overview(study, results):
    """Nine samples of each method in each setting, drawn from the same z, of the first seed."""
    chosen = {(r.run.method, r.run.setting): r for r in results if r.run.seed == study.seeds[0]}
    size = (WIDTH, 0.93 * len(study.methods) + 0.4)
    shape = (len(study.methods), len(study.settings))
    figure, axes = pyplot().subplots(*shape, figsize=size, squeeze=False, layout="constrained")
    for row, method in zip(axes, study.methods):
        for axis, setting in zip(row, study.settings):
            result = chosen.get((method, setting))
            _show(axis, _images(result, OVERVIEW) if result else None, 3)
        words = name_of(method).replace(" (", "\n(").replace(" + ", " +\n")
        row[0].set_ylabel(words, rotation=0, ha="right", va="center", fontsize=9)
    for axis, setting in zip(axes[0], study.settings):
        axis.set_title(setting, fontsize=10)
    evaluated = [r for r in results if r.outcome.evaluation]
    gone = [r for r in evaluated if any(COLLAPSED in sentence for sentence in r.outcome.evaluation.get("warnings", []))]
    text = f"Of {len(evaluated)} runs that were scored, {len(gone)} collapsed to nearly one image"
    if gone:
        counts = {method: len(group) for (method,), group in by(gone, "method").items()}
        text += ": " + ", ".join(f"{name_of(m)} {times(counts[m])}" for m in study.methods if m in counts)
    diverged = [r for r in results if r.outcome.state == "diverged"]
    text += f". {len(diverged)} diverged." if diverged else ". None diverged to NaN or infinity."
    return Figure("samples_by_setting", f"Samples in every setting, seed {study.seeds[0]}", figure, text)


def seconds(study, results):
    """The measured time of a step of G, with its n_dis updates of D, by method."""
    timed = [(r.run.config.n_dis, r.run.method, r.seconds_per_step) for r in results if r.seconds_per_step]
    counts = sorted({n_dis for n_dis, *_ in timed})
    figure, axes = _panels(max(1, len(counts)), 2 if len(counts) > 1 else 1, 0.24 * len(study.methods) + 1, sharey=True)
    means = {}
    for axis, n_dis in zip(axes, counts):
        for row, method in enumerate(study.methods):
            found = interval([s for n, m, s in timed if (n, m) == (n_dis, method)])
            if found:
                means[n_dis, method] = found.mean
                axis.barh(row, 1000 * found.mean, color=COLOURS[method], alpha=0.8)
                axis.plot([1000 * found.low, 1000 * found.high], [row, row], color="black", linewidth=1.2)
        axis.set_title(f"n_dis {n_dis}", fontsize=10)
        axis.grid(alpha=0.3, axis="x")
    axes[0].set_yticks(range(len(study.methods)), map(name_of, study.methods))
    axes[0].invert_yaxis()
    figure.supxlabel("milliseconds per step of G", fontsize=10)
    return Figure("seconds_per_step", "Time of a step of G", figure, _on_seconds(results, means))


def _on_seconds(results, means):
    if not means:
        return "No step has been timed yet."
    n_dis = max(n for n, _ in means)
    own = {method: value for (n, method), value in means.items() if n == n_dis}
    slowest = max(own, key=own.get)
    text = f"With n_dis {n_dis} the slowest is {name_of(slowest)} ({1000 * own[slowest]:.1f} ms)"
    if HERO in own and "none" in own:
        text += f"; {name_of(HERO)} takes {own[HERO] / own['none']:.2f} times the time of no normalization"
        if "wgan_gp" in own:
            text += f", WGAN-GP {own['wgan_gp'] / own['none']:.2f} times"
    devices = {str(entry.get("device")) for r in results for entry in r.outcome.record}
    threads = {str(entry.get("threads")) for r in results for entry in r.outcome.record}
    text += f". Measured within the runs, scoring left out, on {' and '.join(sorted(devices))}"
    text += f" with {' or '.join(sorted(threads))} thread(s) each"
    return text + ("." if len(devices) < 2 else "; several devices: compare with care.")


def save(figure, folder):
    """Save a Figure into a folder as PNG, and close it. Returns the path."""
    path = Path(folder) / f"{figure.name}.png"
    figure.drawn.savefig(path, dpi=130)
    pyplot().close(figure.drawn)
    return path
