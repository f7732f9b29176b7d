"""Draw from a trained generator: a picture for each seed and a grid of them, latent interpolations; or export it."""

import utils  # noqa: F401, first, since it says which package is missing

# isort: split
import argparse
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from datasets import quantise
from datasets.image_files import check_npz, save_samples
from evaluation.sampling import Generated, images_at
from training.checkpoint import Loaded, export_generator, load_trained
from utils import plots
from utils.console import progress
from utils.distributed import select_device
from utils.errors import UserError, explaining_memory, refuse_if, run_as_script
from utils.files import check_target, write_atomically
from utils.parser import Parser, a_path, add_settings, given_settings

OVERRIDES = ("seed", "device")
LARGEST_SEED = 2**32
GRID = 400  # images in grid.png, at most
INTERPOLATIONS, INTERPOLATION_STEPS = 8, 10


def seed_range(text: str) -> range:
    """`7` or `0-63` as a range of seeds."""
    first, dash, last = text.partition("-")
    try:
        found = range(int(first), int(last if dash else first) + 1)
    except ValueError:
        found = range(0)
    if not found or found.stop > LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"{text[:50]!r} is neither a seed such as 7 nor a range such as 0-63")
    return found


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = Parser(description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add(
        "path",
        type=a_path,
        metavar="RUN_DIR_OR_FILE",
        help="a run, one of its checkpoints, or an exported file",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--num", type=int, help="how many images: those of the seeds 0, 1, ... (default: 64)")
    seeds = "numbers and ranges such as 0-63: the image of seed K is the one that evaluate.py scores as number K"
    which.add_argument("--seeds", nargs="+", type=seed_range, metavar="SEED", help=seeds)
    add(
        "--out",
        type=a_path,
        metavar="DIR",
        help="write a PNG for each seed there, and grid.png of them all",
    )
    add(
        "--npz",
        type=a_path,
        metavar="FILE.npz",
        help="keep the images in one file: samples, uint8, N x H x W x C",
    )
    add("--interpolate", action="store_true", help="draw a latent interpolation into the run's plots")
    add(
        "--export",
        type=a_path,
        metavar="FILE",
        help="save the generator for inference, spectral norm folded in",
    )
    add("--no_ema", action="store_true", help="draw from G itself, not the moving average of its weights")
    add_settings(parser, OVERRIDES)
    given = parser.parse_args(argv)
    numbered = given.num is not None or given.seeds is not None
    idle = not (given.out or given.npz) and (numbered or not (given.interpolate or given.export))
    refuse_if(idle, "say where the images go: --out DIR or --npz FILE.npz")
    refuse_if(given.num is not None and given.num < 1, f"--num {given.num}: at least 1")
    check_npz("npz", given.npz)
    check_target(given.export)
    return given


def draw(loaded: Loaded, seeds: Iterable[int], total: int, out: Path | None, npz: str | None) -> None:
    """Draw the image of each of these seeds into a folder, with a grid of them, and into an .npz.

    Each is the same at any number of them: evaluation.sampling draws whole blocks.
    """
    source = Generated(loaded.G, loaded.config.z_dim, loaded.config.seed, next(loaded.G.parameters()).device)
    kept: list[torch.Tensor] = []
    with explaining_memory(f"{total:,} images of {loaded.config.image_size} pixels", "ask for fewer at once"):
        seeds, numbers = itertools.tee(seeds)
        images = images_at(source, numbers)
        for seed, image in progress(zip(seeds, images), "images", total, unit="image"):
            if out:
                plots.picture(image).save(out / name_of(seed))
            if npz or len(kept) < GRID:
                kept.append(image)
        if npz:
            save_samples(npz, torch.stack(kept))
            print(f"{total:,} images are in {npz}")
    if out:
        plots.grid(torch.stack(kept[:GRID])).save(out / "grid.png")
        shown = f", which has the first {GRID}" if total > GRID else ""
        print(f"{total:,} images are in {out}, beside {out / 'grid.png'}{shown}")


def name_of(seed: int) -> str:
    """The name of a seed's picture."""
    return f"seed{seed:06d}.png"


def make_folder(out: Path, seeds: Iterable[int]) -> None:
    """Make the folder for these seeds' pictures. UserError where it cannot be, or has one of them already."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out} cannot be made: {error.strerror}") from error
    for name in itertools.chain(["grid.png"], map(name_of, seeds)):
        if (out / name).exists():
            raise UserError(f"{out / name} exists, and no picture is overwritten: choose another --out, or delete it")


@torch.inference_mode()
def interpolate(loaded: Loaded) -> Path:
    """Draw lines of samples between pairs of latents on the sphere of their norms. Returns the picture's path."""
    generator = torch.Generator().manual_seed(loaded.config.seed)
    start, end = torch.randn(2, INTERPOLATIONS, 1, loaded.config.z_dim, generator=generator)
    angle = torch.linspace(0, torch.pi / 2, INTERPOLATION_STEPS).view(1, -1, 1)
    # cos^2 + sin^2 = 1: every point between two independent normal latents is a normal latent too.
    z = (angle.cos() * start + angle.sin() * end).flatten(0, 1)  # (pairs * steps, z_dim)
    images = quantise(loaded.G(z.to(next(loaded.G.parameters()).device))).cpu()
    folder = loaded.path.parent
    target = folder / f"{loaded.path.stem}_interpolation.png"
    if folder.name == "checkpoints":
        target = folder.parent / "plots" / "interpolation.png"
    picture = plots.grid(images, columns=INTERPOLATION_STEPS)
    write_atomically(target, lambda temporary: picture.save(temporary, format="PNG"))
    return target


def main(argv: Sequence[str] | None = None) -> None:
    namespace = parse_args(argv)
    settings = given_settings(namespace)
    device = select_device(settings.get("device", "auto"))
    loaded = load_trained(namespace.path, not namespace.no_ema, settings, device)
    if namespace.out or namespace.npz:
        ranges = namespace.seeds or [range(namespace.num or 64)]
        total, out = sum(map(len, ranges)), Path(namespace.out) if namespace.out else None
        if out:
            make_folder(out, itertools.chain.from_iterable(ranges))
        try:
            draw(loaded, itertools.chain.from_iterable(ranges), total, out, namespace.npz)
        except OSError as error:
            raise UserError(f"cannot write into {out}: {error.strerror}") from error
    if namespace.interpolate:
        print(interpolate(loaded))
    if namespace.export:
        export_generator(namespace.export, loaded)
        print(f"{namespace.export}: the generator of {loaded.path}; load it with training.load_generator()")


if __name__ == "__main__":
    run_as_script(main)
