"""Score trained generators: checkpoint -> samples -> IS, FID, KID, precision and recall -> evaluation.json.

Also exports a generator for inference and draws latent interpolations; neither of these scores.
"""

import dataclasses
import io
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from utils import checkpoint, data, plots
from utils.config import Config
from utils.distributed import select_device
from utils.errors import UserError, run_as_script
from utils.metrics import Evaluator, summary
from utils.parser import Parser, add_settings, given_settings

OVERRIDES = ("data_dir", "features", "inception_weights", "num_samples", "seed", "device")
INTERPOLATIONS, INTERPOLATION_STEPS = 8, 10


def parse_args(argv=None):
    """Returns (namespace, the typed settings). Settings that are not typed are the checkpoint's own."""
    parser = Parser(description=__doc__, allow_abbrev=False)
    parser.add_argument("checkpoints", nargs="+", metavar="RUN_DIR_OR_CHECKPOINT", help="a run's last one, or the file")
    add_settings(parser, OVERRIDES)
    parser.add_argument("--no_ema", action="store_true", help="score G itself, not the moving average of its weights")
    parser.add_argument(
        "--save_samples", metavar="FILE.npz", help="keep the scored images: samples, uint8, N x H x W x C"
    )
    parser.add_argument("--export", metavar="FILE", help="save the generator for inference, spectral norm folded in")
    parser.add_argument("--interpolate", action="store_true", help="draw a latent interpolation into the run's plots")
    namespace = parser.parse_args(argv)
    single = namespace.save_samples or namespace.export
    if single and len(namespace.checkpoints) > 1:
        raise UserError(f"{single} holds one generator's output, but {len(namespace.checkpoints)} were named")
    if namespace.save_samples and (namespace.export or namespace.interpolate):
        raise UserError("--save_samples keeps scored images, but --export and --interpolate do not score")
    if namespace.save_samples and not namespace.save_samples.endswith(".npz"):
        raise UserError(f"--save_samples {namespace.save_samples}: the name must end in .npz")
    if single and not Path(single).absolute().parent.is_dir():
        raise UserError(f"{single} cannot be written: {Path(single).parent} is not a folder")
    return namespace, given_settings(namespace)


class Loaded(NamedTuple):
    """A generator from a checkpoint or an exported file, and what is known of it."""

    path: Path
    G: torch.nn.Module
    config: Config
    step: int
    ema: bool


def load(path, ema=True, settings=None, device="cpu"):
    """Load the generator of a run directory's last checkpoint, of a checkpoint, or of an exported file, as Loaded.

    ema: the moving average, where there is one. settings: what replaces the checkpoint's own (data_dir, seed, ...).
    """
    if Path(path).is_dir():
        content, path = checkpoint.load_latest(path)
    else:
        content = checkpoint.load(path, (checkpoint.FORMAT, checkpoint.EXPORT_FORMAT))
    G, config, ema = checkpoint.generator_of(content, path, ema)
    config = dataclasses.replace(config, **(settings or {}))
    return Loaded(Path(path), G.to(device), config, content["step"], ema)


def evaluation_path(loaded, no_ema=False):
    """Where an evaluation goes: a run's evaluation.json is of its last checkpoint; others have a name of their own."""
    folder = loaded.path.parent
    if folder.name != "checkpoints":
        return folder / f"{loaded.path.stem}_evaluation.json"
    if loaded.path == checkpoint.latest(folder.parent) and not no_ema:
        return folder.parent / "evaluation.json"
    return folder.parent / f"evaluation_{loaded.path.stem}{'_no_ema' * no_ema}.json"


def score(loaded, evaluator, save_samples=None, no_ema=False):
    """Score a Loaded generator, print the scores and write them as JSON. Returns that file's path."""
    result, images = evaluator.evaluate(loaded.G, loaded.config, loaded.step, loaded.ema)
    print(f"{loaded.path}: {summary(result)}")
    target = evaluation_path(loaded, no_ema)
    text = json.dumps(result, indent=2) + "\n"
    checkpoint.write_atomically(target, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    if save_samples:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, samples=images.permute(0, 2, 3, 1).numpy())
        checkpoint.write_atomically(save_samples, lambda temporary: temporary.write_bytes(buffer.getvalue()))
        print(f"the {len(images):,} scored images are in {save_samples}")
    return target


@torch.inference_mode()
def interpolate(loaded, device):
    """Draw lines of samples between pairs of latents on the sphere of their norms. Returns the picture's path."""
    generator = torch.Generator().manual_seed(loaded.config.seed)
    start, end = torch.randn(2, INTERPOLATIONS, 1, loaded.config.z_dim, generator=generator)
    angle = torch.linspace(0, torch.pi / 2, INTERPOLATION_STEPS).view(1, -1, 1)
    # cos^2 + sin^2 = 1: every point between two independent normal latents is a normal latent too.
    z = (angle.cos() * start + angle.sin() * end).flatten(0, 1)  # (pairs * steps, z_dim)
    images = data.quantise(loaded.G(z.to(device))).cpu()
    folder = loaded.path.parent
    in_run = folder.name == "checkpoints"
    target = (
        folder.parent / "plots" / "interpolation.png" if in_run else folder / f"{loaded.path.stem}_interpolation.png"
    )
    picture = plots.grid(images, columns=INTERPOLATION_STEPS)
    checkpoint.write_atomically(target, lambda temporary: picture.save(temporary, format="PNG"))
    return target


def main():
    namespace, settings = parse_args()
    evaluators = {}
    for path in namespace.checkpoints:
        device = select_device(settings.get("device", "auto"))
        loaded = load(path, not namespace.no_ema, settings, device)
        config = loaded.config
        if namespace.export:
            checkpoint.export_generator(namespace.export, loaded.G.cpu(), config, loaded.step, loaded.ema)
            print(f"{namespace.export}: the generator of {loaded.path}; load it with utils.checkpoint.load_generator()")
        if namespace.interpolate:
            print(interpolate(loaded, device))
        if namespace.export or namespace.interpolate:
            continue
        key = (
            config.dataset,
            config.data_dir,
            config.image_size,
            config.channels,
            config.features,
            config.inception_weights,
        )
        if key not in evaluators:  # runs on the same data share the extractor and the real features
            evaluators[key] = Evaluator(config, data.load_split(config), device)
        print(f"written to {score(loaded, evaluators[key], namespace.save_samples, namespace.no_ema)}")


if __name__ == "__main__":
    run_as_script(main)
