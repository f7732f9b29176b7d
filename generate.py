"""Draw from a trained generator: a picture for each seed, a grid, interpolations or a walk. Or export it."""

import utils  # noqa: F401, first, because it reports missing packages

# isort: split
import argparse
import itertools
import math
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from datasets.image_files import SHEET, check_npz, save_samples
from datasets.labels import named
from evaluation.drawing import LINE_STEPS, LINES, class_lines, images_of, lines, save_walk, walk, weights_of
from evaluation.inputs.sampling import Generated, images_at, latents
from settings.command_line import Parser, a_path, add_settings, given_settings, number_range
from training.checkpoints.checkpoint import Loaded, load_trained
from training.checkpoints.export import check, export
from utils import plots
from utils.console import progress
from utils.distributed import select_device
from utils.errors import UserError, explaining_memory, refuse_if, run_as_script
from utils.files import check_target, make_folder, numbered, write_atomically, writing_into

OVERRIDES = ("seed", "device")
RANGE = re.compile(r"\d+-\d+")
NO_FOLDER = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".npz")  # suffixes that are not names of folders for --out
GRID = 400  # images in grid.png, at most
WORD = 60  # characters of a class name in a file name, at most
ROW = 20  # images of a class in its row of the grid, at most
CORNERS, FRAMES = 8, 120  # of a walk, by default
LEAST_TRUNCATION = 0.01  # smaller values spend most of the time on redrawing


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__, "RUN_DIR --out DIR [--seeds 0-63] [--labels CLASS ...] ...")
    group = parser.add_argument_group("images to draw")
    add = group.add_argument
    add("path", type=a_path, metavar="RUN_DIR_OR_FILE", help="a run, one of its checkpoints, or an exported generator")
    which = group.add_mutually_exclusive_group()
    many = f"number of images, with seeds 0, 1, ... (default: 64; {CORNERS} for a walk)"
    which.add_argument("--num", type=int, metavar="N", help=many)
    seeds = "seeds or ranges of seeds such as 0-63; seed K draws the image that evaluate.py scores as number K"
    which.add_argument("--seeds", nargs="+", type=number_range, metavar="SEED", help=seeds)
    asked = "classes of a conditional run, by name, number or range 3-5, each with all seeds (default: by seed)"
    add("--labels", nargs="+", metavar="CLASS", help=asked)
    near = "redraw each coordinate of z until it is between -T and T, such as 0.7: better but less varied images"
    add("--truncation", type=float, metavar="T", help=near)
    add("--no_ema", action="store_true", help="draw with the raw weights of G, not their exponential moving average")
    add_settings(group, OVERRIDES)
    add = parser.add_argument_group("output").add_argument
    add("--out", type=a_path, metavar="DIR", help="folder for a PNG for each seed, and grid.png with all of them")
    add("--npz", type=a_path, metavar="FILE.npz", help="save the images in one file as uint8, N x H x W x C")
    larger = "enlarge each pixel to N x N (default: 1 for PNGs; small images are enlarged in grids and walks)"
    add("--enlarge", type=int, metavar="N", help=larger)
    between = (
        f"draw N latent interpolations (default: {LINES}) into the run's plots, or, for a file, the current folder; "
    )
    between += "with --labels, between classes"
    add("--interpolate", nargs="?", type=int, const=LINES, metavar="N", help=between)
    closed = "animate a closed walk through latent space, via the images of --seeds or --num, and --labels"
    add("--walk", type=a_path, metavar="FILE.gif", help=closed)
    add("--frames", type=int, metavar="N", help=f"number of frames of the walk (default: {FRAMES})")
    kinds = "save the generator for inference, with spectral norm folded in, as .pt, .safetensors or .onnx"
    add("--export", type=a_path, metavar="FILE", help=kinds)
    levels = "let the exported ONNX file return uint8 RGB images, as torch-fidelity expects, not floats in [-1, 1]"
    add("--uint8", action="store_true", help=levels)
    given = parser.parse_args(with_lines(sys.argv[1:] if argv is None else argv))
    check_flags(given)
    return given


def with_lines(argv: Sequence[str]) -> list[str]:
    """Add the default to an --interpolate without a number. Otherwise it would take a run as its value."""
    pairs = zip(argv, [*argv[1:], ""])
    return [f"{word}={LINES}" if word == "--interpolate" and not then.isdigit() else word for word, then in pairs]


def check_flags(given: argparse.Namespace) -> None:
    """Check the flags. Raises UserError if any of them, or a combination, makes no sense."""
    numbered = given.num is not None or given.seeds is not None
    drawn = given.out or given.npz or given.walk
    idle = not drawn and (numbered or (given.interpolate is None and not given.export))
    refuse_if(idle, "name an output for the images: --out DIR or --npz FILE.npz")
    for name in ("num", "interpolate", "enlarge", "frames"):
        value = getattr(given, name)
        refuse_if(value is not None and value < 1, f"--{name} {value}: must be at least 1")
    small = given.truncation is not None and not given.truncation >= LEAST_TRUNCATION
    refuse_if(small, f"--truncation {given.truncation}: must be at least {LEAST_TRUNCATION}")
    refuse_if(given.truncation is not None and not drawn, "--truncation needs --out, --npz or --walk")
    refuse_if(given.frames is not None and not given.walk, "--frames needs --walk FILE.gif")
    refuse_if(given.walk and not given.walk.endswith(".gif"), f"--walk {given.walk}: the name must end in .gif")
    corners, frames = corners_of(given), given.frames or FRAMES
    refuse_if(
        given.walk and frames < corners, f"--frames {frames}: must be at least {corners}, one for each image on the way"
    )
    idle = given.labels and not (drawn or given.interpolate)
    refuse_if(idle, "--labels needs --out, --npz, --walk or --interpolate")
    check_npz("npz", given.npz)
    check_target(given.walk)
    check(given.export, given.uint8)


def seeds_of(given: argparse.Namespace, default: int) -> list[int]:
    """The seeds of --seeds or --num, or 0 to default - 1."""
    return [*itertools.chain(*(given.seeds or [range(given.num or default)]))]


def corners_of(given: argparse.Namespace) -> int:
    """The number of images on a walk: that of seeds or named classes, whichever is larger."""
    return max(len(seeds_of(given, CORNERS)), len(given.labels or ()))


def labels_of(loaded: Loaded, given: argparse.Namespace) -> list[int]:
    """The labels that --labels names; [] without it. Raises UserError if there are no such classes."""
    if not given.labels:
        return []
    if not loaded.classes:
        raise UserError(f"leave out --labels: {loaded.path} was trained without classes, but --labels needs them")
    names = loaded.classes.names  # a name may look like a range
    each = (number_range(word) if RANGE.fullmatch(word) and word not in names else [word] for word in given.labels)
    return named(names, map(str, itertools.chain.from_iterable(each)))


def draw(loaded: Loaded, given: argparse.Namespace) -> None:
    """Draw the image of each seed, or label and seed. Write a folder with a grid, and an .npz."""
    seeds, out = seeds_of(given, 64), Path(given.out) if given.out else None
    asked: list[int | None] = [*dict.fromkeys(labels_of(loaded, given))] or [None]
    total = len(seeds) * len(asked)
    names = [loaded.classes.names[label] for label in asked if label is not None] if loaded.classes else []
    columns = min(ROW, len(seeds)) if names else None  # requested classes have a row each
    if out:
        named = "name a folder. Its grid.png shows all images; --npz saves them in one file, --walk animates"
        refuse_if(out.suffix.lower() in NO_FOLDER and not out.is_dir(), f"--out {out}: {named}")
        make_folder(out, f"--out {out}")
        for path in (out / SHEET, *(out / name_of(loaded, *pair) for pair in itertools.product(asked, seeds))):
            refuse_if(path.exists(), f"{path} exists and is not overwritten: choose another --out, or delete it")
    shown: list[Tensor] = []
    every: list[Tensor] = []
    labels: list[Tensor] = []
    with explaining_memory(f"{total:,} images of {loaded.config.image_size} pixels", "draw fewer at once"):
        drawn = drawings(loaded, asked, seeds, given.truncation)
        for number, (label, seed, image, own) in enumerate(progress(drawn, "images", total, unit="image")):
            if out:
                plots.picture(plots.enlarge(image, given.enlarge or 1)).save(out / name_of(loaded, label, seed))
            if number % len(seeds) < (columns or GRID):
                shown.append(image)
            if given.npz:
                every.append(image)
                labels += [] if own is None else [own]
        if given.npz:
            save_samples(given.npz, torch.stack(every), torch.cat(labels) if labels else None)
            print(f"{total:,} images are in {given.npz}")
    if out:
        plots.grid(torch.stack(shown), columns, given.enlarge, names).save(out / SHEET)
        part = f", which shows {len(shown)} of them" if len(shown) < total else ""
        print(f"{total:,} images are in {out}, with {out / SHEET}{part}")


def drawings(
    loaded: Loaded, asked: Sequence[int | None], seeds: Sequence[int], truncation: float | None
) -> Iterator[tuple[int | None, int, Tensor, Tensor | None]]:
    """Yield (requested label, seed, image (C, H, W) uint8, its label if any) for each label and seed.

    An image does not depend on the others, because evaluation.inputs.sampling draws whole blocks.
    """
    _, G, config, *_ = loaded
    device = next(G.parameters()).device
    for label in asked:
        source = Generated(G, config.z_dim, config.seed, device, truncation or math.inf, loaded.classes, label)
        for seed, image in zip(seeds, images_at(source, seeds)):
            yield label, seed, image, source.labels(seed, 1)


def name_of(loaded: Loaded, label: int | None, seed: int) -> str:
    """The file name of a picture: its seed and, if one was requested, its class."""
    if label is None or loaded.classes is None:
        return f"seed{seed:06d}.png"
    words = [re.sub(r"[^\w.+-]+", "_", name).strip("._")[:WORD] for name in loaded.classes.names]
    word = words[label] if words.count(words[label]) == 1 and words[label] else f"class{label}_{words[label]}"
    return f"{word}_seed{seed:06d}.png"


def interpolate(loaded: Loaded, given: argparse.Namespace) -> Path:
    """Draw samples on lines between latents (see lines()), or between classes if --labels names several."""
    config, labels = loaded.config, labels_of(loaded, given)
    weights = None
    if len(labels) > 1 and loaded.classes:
        z, weights = class_lines(config.seed, given.interpolate, config.z_dim, labels, len(loaded.classes.names))
    else:
        z = lines(config.seed, given.interpolate, config.z_dim)
        if loaded.classes:
            chosen = torch.tensor(labels) if labels else loaded.classes.labels(config.seed, 0, given.interpolate)
            weights = chosen.expand(given.interpolate).repeat_interleave(LINE_STEPS)
    images = images_of(loaded.G, z, weights)
    run = loaded.path.parent.parent / "plots" if loaded.path.parent.name == "checkpoints" else None
    stem = run / "interpolation" if run else Path(f"{loaded.path.stem}_interpolation")
    target = next(path for each in numbered(stem) if not (path := Path(f"{each}.png")).exists())
    picture = plots.grid(images, len(images) // given.interpolate, given.enlarge)
    write_atomically(target, lambda temporary: picture.save(temporary, format="PNG"))
    return target


def animate(loaded: Loaded, given: argparse.Namespace) -> None:
    """Draw a closed walk via the images of the seeds and the classes of --labels.

    If there are fewer seeds than classes, or the reverse, they are repeated.
    """
    config, labels, truncation = loaded.config, labels_of(loaded, given), given.truncation or math.inf
    seeds = seeds_of(given, CORNERS)
    count = corners_of(given)
    seeds = [seeds[i % len(seeds)] for i in range(count)]
    corners = torch.cat([latents(config.seed, seed, 1, config.z_dim, truncation) for seed in seeds])
    weights = None
    if loaded.classes:
        own = [int(loaded.classes.labels(config.seed, seed, 1)) for seed in seeds]
        chosen = [labels[i % len(labels)] for i in range(count)] if labels else own
        weights = weights_of(chosen, len(loaded.classes.names))
    z, classes = walk(corners, given.frames or FRAMES, weights)
    with explaining_memory(f"{len(z):,} frames of {config.image_size} pixels", "use fewer --frames"):
        save_walk(given.walk, images_of(loaded.G, z, classes), given.enlarge)
    print(f"{given.walk}: a walk of {len(z)} frames via {len(corners)} images")


def main(argv: Sequence[str] | None = None) -> None:
    given = parse_args(argv)
    settings = given_settings(given)
    device = select_device(settings.get("device", "auto"))
    loaded = load_trained(given.path, not given.no_ema, settings, device)
    if loaded.classes:
        given.labels = [loaded.classes.names[label] for label in labels_of(loaded, given)]  # with ranges expanded
        check_flags(given)
    if given.out or given.npz:
        with writing_into(given.out or given.npz):
            draw(loaded, given)
    if given.walk:
        animate(loaded, given)
    if given.interpolate:
        print(interpolate(loaded, given))
    if given.export:
        export(given.export, loaded, given.uint8)
        reader = "onnxruntime" if given.export.endswith(".onnx") else "training.load_generator()"
        print(f"{given.export}: the generator of {loaded.path}; load it with {reader}")


if __name__ == "__main__":
    run_as_script(main)
