"""Draw from a trained generator: a picture for each seed and a grid of them, interpolations, a walk; or export it."""

import utils  # noqa: F401, first, since it says which package is missing

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
NO_FOLDER = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".npz")  # endings of what --out does not make
GRID = 400  # images in grid.png, at most
WORD = 60  # characters of a class in the name of a picture
ROW = 20  # of them in a class's row
CORNERS, FRAMES = 8, 120  # of a walk
LEAST_TRUNCATION = 0.01  # below it most of the time goes by in drawing again


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__, "RUN_DIR --out DIR [--seeds 0-63] [--labels CLASS ...] ...")
    group = parser.add_argument_group("what is drawn")
    add = group.add_argument
    add("path", type=a_path, metavar="RUN_DIR_OR_FILE", help="a run, one of its checkpoints, or an exported generator")
    which = group.add_mutually_exclusive_group()
    many = f"number of images, of the seeds 0, 1, ... (default: 64; {CORNERS} for a walk)"
    which.add_argument("--num", type=int, metavar="N", help=many)
    seeds = "seeds and ranges of seeds such as 0-63; seed K gives the image that evaluate.py scores as number K"
    which.add_argument("--seeds", nargs="+", type=number_range, metavar="SEED", help=seeds)
    asked = "a conditional run's classes, by name, number or range 3-5, each with all seeds (default: each seed's own)"
    add("--labels", nargs="+", metavar="CLASS", help=asked)
    near = "draw each number of z again until it is between -T and T, such as 0.7: better but less varied images"
    add("--truncation", type=float, metavar="T", help=near)
    add("--no_ema", action="store_true", help="draw from G itself, not from the moving average of its weights")
    add_settings(group, OVERRIDES)
    add = parser.add_argument_group("output").add_argument
    add("--out", type=a_path, metavar="DIR", help="folder for one PNG for each seed, and grid.png with all of them")
    add("--npz", type=a_path, metavar="FILE.npz", help="save the images in one file as uint8, N x H x W x C")
    larger = "show each pixel as N x N pixels (default: 1 in PNGs; grids and walks enlarge small images)"
    add("--enlarge", type=int, metavar="N", help=larger)
    between = (
        f"draw N latent interpolations (default: {LINES}) into the run's plots, those of a file into this folder; "
    )
    between += "with --labels, between classes"
    add("--interpolate", nargs="?", type=int, const=LINES, metavar="N", help=between)
    closed = "animate a closed walk through latent space, past the images of --seeds or --num, and --labels"
    add("--walk", type=a_path, metavar="FILE.gif", help=closed)
    add("--frames", type=int, metavar="N", help=f"number of frames of the walk (default: {FRAMES})")
    kinds = "save the generator for inference, with spectral norm folded in, as FILE.pt, FILE.safetensors or FILE.onnx"
    add("--export", type=a_path, metavar="FILE", help=kinds)
    levels = "the exported ONNX file returns uint8 RGB images, as torch-fidelity expects, not floats in [-1, 1]"
    add("--uint8", action="store_true", help=levels)
    given = parser.parse_args(with_lines(sys.argv[1:] if argv is None else argv))
    check_flags(given)
    return given


def with_lines(argv: Sequence[str]) -> list[str]:
    """Give an --interpolate before anything but a number its default, or it would take a run for the number."""
    pairs = zip(argv, [*argv[1:], ""])
    return [f"{word}={LINES}" if word == "--interpolate" and not then.isdigit() else word for word, then in pairs]


def check_flags(given: argparse.Namespace) -> None:
    """Raise UserError for flags that make no sense, alone or together."""
    numbered = given.num is not None or given.seeds is not None
    drawn = given.out or given.npz or given.walk
    idle = not drawn and (numbered or (given.interpolate is None and not given.export))
    refuse_if(idle, "say where the images go: --out DIR or --npz FILE.npz")
    for name in ("num", "interpolate", "enlarge", "frames"):
        value = getattr(given, name)
        refuse_if(value is not None and value < 1, f"--{name} {value}: at least 1")
    small = given.truncation is not None and not given.truncation >= LEAST_TRUNCATION
    refuse_if(small, f"--truncation {given.truncation}: at least {LEAST_TRUNCATION}")
    refuse_if(given.truncation is not None and not drawn, "--truncation goes with --out, --npz or --walk")
    refuse_if(given.frames is not None and not given.walk, "--frames goes with --walk FILE.gif")
    refuse_if(given.walk and not given.walk.endswith(".gif"), f"--walk {given.walk}: the name must end in .gif")
    corners, frames = corners_of(given), given.frames or FRAMES
    refuse_if(
        given.walk and frames < corners, f"--frames {frames}: at least one for each of the {corners} images on the way"
    )
    idle = given.labels and not (drawn or given.interpolate)
    refuse_if(idle, "--labels goes with --out, --npz, --walk or --interpolate")
    check_npz("npz", given.npz)
    check_target(given.walk)
    check(given.export, given.uint8)


def seeds_of(given: argparse.Namespace, default: int) -> list[int]:
    """The seeds that are asked for."""
    return [*itertools.chain(*(given.seeds or [range(given.num or default)]))]


def corners_of(given: argparse.Namespace) -> int:
    """How many images a walk comes by: as many as there are seeds, or classes that are named."""
    return max(len(seeds_of(given, CORNERS)), len(given.labels or ()))


def labels_of(loaded: Loaded, given: argparse.Namespace) -> list[int]:
    """The labels that --labels names; [] without it. UserError where there are no such classes."""
    if not given.labels:
        return []
    if not loaded.classes:
        raise UserError(f"--labels: {loaded.path} was trained without classes, and draws what it likes")
    names = loaded.classes.names  # one of them may look like a range
    each = (number_range(word) if RANGE.fullmatch(word) and word not in names else [word] for word in given.labels)
    return named(names, map(str, itertools.chain.from_iterable(each)))


def draw(loaded: Loaded, given: argparse.Namespace) -> None:
    """Draw the image of each seed, or of each label and seed, into a folder, with a grid of them, and into an .npz."""
    seeds, out = seeds_of(given, 64), Path(given.out) if given.out else None
    asked: list[int | None] = [*dict.fromkeys(labels_of(loaded, given))] or [None]
    total = len(seeds) * len(asked)
    names = [loaded.classes.names[label] for label in asked if label is not None] if loaded.classes else []
    columns = min(ROW, len(seeds)) if names else None  # of the classes that were asked for a row each
    if out:
        named = "name a folder. Its grid.png shows all images; --npz keeps them in one file, and --walk is an animation"
        refuse_if(out.suffix.lower() in NO_FOLDER and not out.is_dir(), f"--out {out}: {named}")
        make_folder(out, f"--out {out}")
        for path in (out / SHEET, *(out / name_of(loaded, *pair) for pair in itertools.product(asked, seeds))):
            refuse_if(path.exists(), f"{path} exists, and is not overwritten: choose another --out, or delete it")
    shown: list[Tensor] = []
    every: list[Tensor] = []
    labels: list[Tensor] = []
    with explaining_memory(f"{total:,} images of {loaded.config.image_size} pixels", "ask for fewer at once"):
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
        part = f", which has {len(shown)} of them" if len(shown) < total else ""
        print(f"{total:,} images are in {out}, beside {out / SHEET}{part}")


def drawings(
    loaded: Loaded, asked: Sequence[int | None], seeds: Sequence[int], truncation: float | None
) -> Iterator[tuple[int | None, int, Tensor, Tensor | None]]:
    """Yield (the label that was asked for, seed, image (C, H, W) uint8, its label if any) of each label and seed.

    An image is the same at any number of them: evaluation.inputs.sampling draws whole blocks.
    """
    _, G, config, *_ = loaded
    device = next(G.parameters()).device
    for label in asked:
        source = Generated(G, config.z_dim, config.seed, device, truncation or math.inf, loaded.classes, label)
        for seed, image in zip(seeds, images_at(source, seeds)):
            yield label, seed, image, source.labels(seed, 1)


def name_of(loaded: Loaded, label: int | None, seed: int) -> str:
    """The name of a picture: of its seed and, where one was asked for, of its class."""
    if label is None or loaded.classes is None:
        return f"seed{seed:06d}.png"
    words = [re.sub(r"[^\w.+-]+", "_", name).strip("._")[:WORD] for name in loaded.classes.names]
    word = words[label] if words.count(words[label]) == 1 and words[label] else f"class{label}_{words[label]}"
    return f"{word}_seed{seed:06d}.png"


def interpolate(loaded: Loaded, given: argparse.Namespace) -> Path:
    """Draw samples along quarter ellipses between pairs of latents (see lines()), a conditional generator's each of a
    class; or, between the classes that --labels names, each at one latent. Returns the picture's path."""
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
    """Draw a closed walk by way of the images of the seeds, and of the classes of --labels.

    Where there are fewer seeds than classes, or the reverse, it comes by the same ones again.
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
    with explaining_memory(f"{len(z):,} frames of {config.image_size} pixels", "ask for fewer --frames"):
        save_walk(given.walk, images_of(loaded.G, z, classes), given.enlarge)
    print(f"{given.walk}: a walk of {len(z)} frames by way of {len(corners)} images")


def main(argv: Sequence[str] | None = None) -> None:
    given = parse_args(argv)
    settings = given_settings(given)
    device = select_device(settings.get("device", "auto"))
    loaded = load_trained(given.path, not given.no_ema, settings, device)
    if loaded.classes:
        given.labels = [loaded.classes.names[label] for label in labels_of(loaded, given)]  # of a range each
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
