"""The pictures of docs/spectral_normalization.md. Takes a minute on one CPU thread.

`python benchmarks/spectral_pictures.py [FOLDER]` writes them to docs/ or to FOLDER, and prints the page's numbers as
JSON.
"""

import io
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import spectral  # first: it adds the project's folder to sys.path

# isort: split
import numpy as np
import torch
from PIL import Image

from models.spectral_norm import power_iteration
from study.drawing import COLOURS
from utils.plots import pyplot

DOCS = Path(__file__).resolve().parent.parent / "docs"
COLOURS_OF_A_PICTURE = 64
EXAMPLE = ((1.6, 0.9), (0.1, 0.9))  # the matrix of the first picture
RATIOS, ITERATIONS = (0.5, 0.9, 0.99), 60  # second singular value to first
NORMS = {"none": ("none",), "spectral": ("spectral",), "spectral_batch": ("spectral", "batch")}
NAMES = {"none": "no normalization", "spectral": "spectral norm", "spectral_batch": "spectral and batch norm"}
SETTLED = 30  # updates after which a u that started anywhere is taken to have found its direction
SLOPES = {
    "lower_bound": "steepest gradient seen",
    "upper_bound_reshaped": "product of reshaped norms",
    "upper_bound": "bound: product of true norms",
}
FOLLOWING = {  # label in the picture: (iterations for each weight, whether u is carried from weight to weight)
    "1 iteration, u kept": (1, True),
    "1 iteration, a new u each time": (1, False),
    "10 iterations, a new u each time": (10, False),
}


def panels(*labels, height=3.4):
    """A figure with panels side by side, with titles and axis labels."""
    figure = pyplot().Figure(figsize=(4.3 * len(labels), height), layout="constrained")
    axes = figure.subplots(1, len(labels), squeeze=False)[0]
    for axis, (title, x, y) in zip(axes, labels):
        axis.set(xlabel=x, ylabel=y)
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.25)
    return figure, axes


def save(figure, path):
    """Save a figure as a PNG with few colours, so that the file is small."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    picture = Image.open(buffer).convert("RGB").quantize(COLOURS_OF_A_PICTURE, dither=Image.Dither.NONE)
    picture.save(path, optimize=True)


def draw_ellipse(folder):
    W = torch.tensor(EXAMPLE, dtype=torch.float64)
    values = torch.linalg.svdvals(W).tolist()
    figure, axes = panels(
        ("W turns the unit circle into an ellipse", "first coordinate", "second coordinate"),
        ("W / sigma(W) keeps it within the circle", "first coordinate", "second coordinate"),
        height=3.6,
    )
    for axis, matrix in zip(axes, (W, W / values[0])):
        circle, image, (sigma, u, v) = spectral.ellipse(matrix)
        axis.plot(*circle, color="0.6", label="x, of length 1")
        axis.plot(*image, color=COLOURS["spectral"], linewidth=2, label="its image")
        for vector, colour, name in ((v, "0.45", "v"), (sigma * u, COLOURS["spectral"], f"{sigma:.2f} u")):
            axis.annotate("", vector.tolist(), (0, 0), arrowprops={"arrowstyle": "->", "color": colour, "lw": 1.5})
            axis.annotate(name, vector.tolist(), xytext=(4, 5), textcoords="offset points", color=colour)
        axis.set(xlim=(-2.6, 2.6), ylim=(-2.0, 2.0), aspect="equal")
        axis.legend(loc="lower right", fontsize=8)
    save(figure, folder / "sn_ellipse.png")
    return {"singular values": values, "by power iteration": spectral.ellipse(W)[2][0].item()}


def draw_power_iteration(folder, weights):
    figure, (still, moving) = panels(
        ("A matrix that stands still", "iterations", "error"),
        ("A weight of D while it trains", "updates of D", "estimate of sigma / sigma"),
    )
    facts = {"iterations to 1 %": {}, "share of sigma in training": {}}
    for ratio, colour in zip(RATIOS, ("C2", "C1", "C3")):
        W, first = spectral.with_singular_values([1.0, *np.linspace(ratio, 0.1, 31)])
        tangents, errors = spectral.closing_in(W, first, ITERATIONS)
        count = np.arange(1, ITERATIONS + 1)
        still.plot(count, tangents, color=colour, label=f"second / first = {ratio}")
        still.plot(count, errors.clamp_min(1e-16), "--", color=colour, linewidth=1)
        facts["iterations to 1 %"][ratio] = 1 + int((errors > 0.01).sum())
    still.plot([], [], color="0.4", label="tangent of the angle of u")
    still.plot([], [], "--", color="0.4", linewidth=1, label="1 - estimate / sigma")
    still.set(yscale="log", ylim=(1e-8, 1e5), yticks=[10.0**power for power in range(-8, 2, 2)])
    still.legend(fontsize=8, loc="upper right", ncols=2)
    for (name, how), colour in zip(FOLLOWING.items(), (COLOURS["spectral"], "0.6", "C1")):
        shares = spectral.following(weights, *how).numpy()
        moving.plot(
            np.arange(1, len(shares) + 1),
            shares,
            color=colour,
            linewidth=1 + 0.5 * how[1],
            label=name,
            zorder=2 + how[1],
        )
        least = int(shares[SETTLED:].argmin())
        facts["share of sigma in training"][name] = {
            "least": float(shares[SETTLED + least]),
            "at update": SETTLED + least + 1,
            "median": float(np.median(shares[SETTLED:])),
        }
    moving.set(ylim=(0.2, 1.04))
    moving.legend(fontsize=8, loc="lower right")
    save(figure, folder / "sn_power_iteration.png")
    return facts


def draw_gradient(folder):
    found = spectral.gradients()
    W, W_SN, before_after = found["W"], found["W_SN"], spectral.components(found)
    sigma = torch.linalg.svdvals(W)[0]
    figure, (line, bars) = panels(
        ("The loss at c W", "c", "loss"),
        ("Gradient along W's singular directions", "number of the singular value", "component"),
    )
    scales = torch.linspace(0.2, 3, 57, dtype=torch.float64)
    plain = [spectral.small_loss(c * W).item() for c in scales]
    divided = [spectral.small_loss(c * W / power_iteration(c * W, W[:, 0], 200)[0]).item() for c in scales]
    line.plot(scales, plain, color=COLOURS["none"], label="of W itself")
    line.plot(scales, divided, color=COLOURS["spectral"], linewidth=2, label="of W / sigma(W)")
    line.legend(fontsize=8)
    numbers = np.arange(1, len(W) + 1)
    for values, shift, colour, name in zip(
        before_after, (-0.2, 0.2), ("0.6", COLOURS["spectral"]), ("g, at W / sigma", "sigma times that at W")
    ):
        bars.bar(numbers + shift, values, 0.4, color=colour, label=name)
    bars.axhline(0, color="0.3", linewidth=0.8)
    bars.legend(fontsize=8)
    save(figure, folder / "sn_gradient.png")
    return {
        "cosine of g and W": spectral.along(found["g"], W),
        "cosine of dW and W": spectral.along(found["dW"], W),
        "sigma": sigma.item(),
        "<g, W_SN>": (found["g"] * W_SN).sum().item(),
        "components of g": before_after[0].tolist(),
        "components of sigma dW": before_after[1].tolist(),
    }


def draw_audit(folder, audits):
    figure, (layers, slopes) = panels(
        ("D's layers under spectral norm", "layer", "norm"),
        ("Slope of D after training", "slope", None),
    )
    convolutions = [layer for layer in audits["spectral"]["layers"] if layer["kind"].startswith("Conv2d")]
    numbers, gains = np.arange(1, len(convolutions) + 1), [spectral.largest_gain(layer) for layer in convolutions]
    layers.bar(numbers, gains, 0.7, color="0.9", label="most that windows allow")
    norms = {
        "operator_norm": ("D", "C0", "as a map of images"),
        "sigma_svd": ("o", COLOURS["spectral"], "of the reshaped weight"),
    }
    for key, (marker, colour, label) in norms.items():
        layers.plot(numbers, [layer[key] for layer in convolutions], marker, color=colour, label=label)
    kinds = [layer["kind"].removeprefix("Conv2d ").replace(", stride ", "\nstride ") for layer in convolutions]
    layers.set_xticks(numbers, kinds, fontsize=7)
    layers.set(ylim=(0, 4.2))
    layers.legend(fontsize=7, loc="upper right", ncols=2)
    for row, (name, audit) in enumerate(audits.items()):
        slopes.plot([audit["lower_bound"], audit["upper_bound"]], [row, row], color=COLOURS[name], linewidth=1.5)
        for (key, label), marker in zip(SLOPES.items(), "o|D"):
            slopes.plot([audit[key]], [row], marker, ms=7, mew=1.6, color=COLOURS[name], label=label)
    slopes.set_xscale("log")
    slopes.set_yticks(range(len(audits)), [NAMES[name].replace(" norm", "\nnorm", 1) for name in audits], fontsize=8)
    slopes.set(ylim=(-0.6, len(audits) + 0.3))
    slopes.legend(*(found[: len(SLOPES)] for found in slopes.get_legend_handles_labels()), fontsize=7, loc="upper left")
    save(figure, folder / "sn_audit.png")
    return {
        "layers: sigma, norm as a map, most of it": {
            f"{layer['name']} {layer['kind']}": [layer["sigma_svd"], layer["operator_norm"], gain]
            for layer, gain in zip(convolutions, gains)
        },
        "slopes": {name: {key: audit[key] for key in SLOPES} for name, audit in audits.items()},
    }


def draw_training(folder, audits):
    figure, (gradient, slope) = panels(
        ("D's gradient at real images", "updates of G", "mean norm"),
        ("What bounds D's slope", "updates of G", "bound"),
    )
    facts = {}  # {name: {step: [mean gradient, bound]}}
    for name, found in audits.items():
        means = [audit["gradient_norm"]["real"]["mean"] for audit in found.values()]
        bounds = [audit["upper_bound"] for audit in found.values()]
        gradient.plot([*found], means, color=COLOURS[name], label=NAMES[name])
        slope.plot([*found], bounds, color=COLOURS[name], label=NAMES[name])
        facts[name] = {step: [f"{mean:.3g}", f"{bound:.3g}"] for step, mean, bound in zip(found, means, bounds)}
    gradient.set(yscale="log")
    slope.set(yscale="log")
    gradient.legend(fontsize=8)
    save(figure, folder / "sn_training.png")
    return facts


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS
    torch.set_num_threads(1)
    runs = {name: spectral.training(d_norm) for name, d_norm in NORMS.items()}
    audits = {name: found for name, (_, found) in runs.items()}
    report = {
        "ellipse": draw_ellipse(folder),
        "power iteration": draw_power_iteration(folder, runs["spectral"][0]),
        "gradient": draw_gradient(folder),
        "audit": draw_audit(folder, {name: found[max(found)] for name, found in audits.items()}),
        "training": draw_training(folder, audits),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
