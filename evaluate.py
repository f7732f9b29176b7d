"""Score trained generators: checkpoint -> samples -> IS, FID, KID, precision and recall -> evaluation.json.

Also exports a generator for inference and draws latent interpolations; neither of these scores.
"""

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import torch

from utils import checkpoint, data, plots
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
    if namespace.save_samples and not namespace.save_samples.endswith(".npz"):
        raise UserError(f"--save_samples {namespace.save_samples}: the name must end in .npz")
    return namespace, given_settings(namespace)


def to_checkpoint(path):
    """The checkpoint that a path names: itself, or a run directory's last."""
    return checkpoint.latest(path) if Path(path).is_dir() else Path(path)


def output_path(path, name):
    """Where something made from a checkpoint goes: into its run directory, or beside a checkpoint that has none."""
    return (
        path.parent.parent / name
        if path.parent.name == "checkpoints"
        else path.with_name(f"{path.stem}_{Path(name).name}")
    )


def write_json(path, content):
    text = json.dumps(content, indent=2) + "\n"
    checkpoint.write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def score_checkpoint(path, evaluator, ema=True, num_samples=None, seed=None, save_samples=None):
    """Score one checkpoint, print the scores and write evaluation.json into its run directory. Returns that path."""
    content = checkpoint.load(path)
    G, _, ema = checkpoint.generator_of(content, path, ema)
    result, images = evaluator.evaluate(G.to(evaluator.device), content["step"], ema, num_samples, seed)
    print(f"{path}: {summary(result)}")
    if save_samples:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, samples=images.permute(0, 2, 3, 1).numpy())
        checkpoint.write_atomically(save_samples, lambda temporary: temporary.write_bytes(buffer.getvalue()))
        print(f"the {len(images):,} scored images are in {save_samples}")
    target = output_path(path, "evaluation.json")
    write_json(target, result)
    return target


@torch.inference_mode()
def interpolate(path, ema, device, seed):
    """Draw lines of samples between pairs of latents on the sphere of their norms. Returns the picture's path."""
    G, config, _ = checkpoint.generator_of(checkpoint.load(path), path, ema)
    generator = torch.Generator().manual_seed(config.seed if seed is None else seed)
    start, end = torch.randn(2, INTERPOLATIONS, 1, config.z_dim, generator=generator)
    angle = torch.linspace(0, torch.pi / 2, INTERPOLATION_STEPS).view(1, -1, 1)
    # cos^2 + sin^2 = 1: every point between two independent normal latents is a normal latent too.
    z = (angle.cos() * start + angle.sin() * end).flatten(0, 1)  # (pairs * steps, z_dim)
    images = data.quantise(G.to(device)(z.to(device))).cpu()
    target = output_path(path, "plots/interpolation.png")
    target.parent.mkdir(exist_ok=True)
    plots.grid(images, columns=INTERPOLATION_STEPS).save(target)
    return target


def main():
    namespace, flags = parse_args()
    evaluators = {}
    for path in map(to_checkpoint, namespace.checkpoints):
        content = checkpoint.load(path)
        config = dataclasses.replace(checkpoint.config_of(content, path), **flags)
        device = select_device(config.device)
        if namespace.export:
            G, _, ema = checkpoint.generator_of(content, path, not namespace.no_ema)
            checkpoint.export_generator(namespace.export, G, config, content["step"], ema)
            print(f"{namespace.export}: the generator of {path}; load it with utils.checkpoint.load_generator()")
        if namespace.interpolate:
            print(interpolate(path, not namespace.no_ema, device, flags.get("seed")))
        if namespace.export or namespace.interpolate:
            continue
        key = (config.dataset, config.data_dir, config.image_size, config.channels, config.features)
        if key not in evaluators:  # runs on the same data share the extractor and the real features
            evaluators[key] = Evaluator(config, data.load_split(config), device)
        written = score_checkpoint(
            path, evaluators[key], not namespace.no_ema, config.num_samples, config.seed, namespace.save_samples
        )
        print(f"written to {written}")


if __name__ == "__main__":
    run_as_script(main)
