"""Compare scoring with torch_fidelity.calculate_metrics on the same images and weights: time, memory and scores.

Each side runs in its own process, so that peak memory is measured separately. Prints JSON; see docs/scoring.md.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch import nn  # noqa: E402

from datasets import Images  # noqa: E402
from settings.config import Config  # noqa: E402

SCORES = {
    "inception_score_mean": lambda result: result["inception_score"]["mean"],
    "inception_score_std": lambda result: result["inception_score"]["std"],
    "frechet_inception_distance": lambda result: result["fid"],
    "kernel_inception_distance_mean": lambda result: result["kid"]["mean"],
    "kernel_inception_distance_std": lambda result: result["kid"]["std"],
    "precision": lambda result: result["precision"],
    "recall": lambda result: result["recall"],
}


def images(count, seed, low=0):
    """Noise with structure: random 4x4 colours, enlarged to 32x32, (count, 3, 32, 32) uint8."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(low, 256, (count, 3, 4, 4), generator=generator).to(torch.uint8)
    return coarse.repeat_interleave(8, 2).repeat_interleave(8, 3)


def random_weights(path):
    """Write Inception weights of the right format with random values."""
    from torchvision.models import inception_v3

    torch.manual_seed(0)
    network = inception_v3(num_classes=1008, aux_logits=False, weights=None, init_weights=False)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data.mul_(6**0.5)  # to He's variance, so that the signal keeps its size
    torch.save(network.state_dict(), path)


class Tensors(torch.utils.data.Dataset):
    """Images as a dataset for calculate_metrics()."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __len__(self):
        return len(self.tensor)

    def __getitem__(self, index):
        return self.tensor[index]


def ours(count, weights, data_dir):
    """Score as evaluate.py does, with diagnostics, and with or without a cached reference."""
    from evaluation.evaluator import Evaluator
    from evaluation.inputs.sampling import Given

    config = Config(dataset="folder", data_dir=data_dir, inception_weights=weights)
    train = Images(images(count, 0), torch.full((count,), -1), ())
    evaluator = Evaluator(config, train, torch.device("cpu"), say=lambda text: None)
    facts = {"step": None, "ema": None, "seed": None}
    (result,), _ = evaluator.evaluate(Given(images(count, 1, 30)), facts, ("modern",), num_samples=50_000)
    return {name: score(result) for name, score in SCORES.items()}


def theirs(count, weights, data_dir):
    """Score with calculate_metrics and its defaults, except the size of KID's subsets."""
    import torch_fidelity

    found = torch_fidelity.calculate_metrics(
        input1=Tensors(images(count, 1, 30)),
        input2=Tensors(images(count, 0)),
        cuda=False,
        isc=True,
        fid=True,
        kid=True,
        prc=True,
        kid_subset_size=min(1000, count),
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=weights,
        cache=False,
        verbose=False,
    )
    return {name: found[name] for name in SCORES}


class Cheap(nn.Module):
    """Features of Inception's size at no cost, to measure only the cache."""

    name, sha256 = "cheap", 64 * "0"

    def forward(self, batch):
        return torch.randn(len(batch), 2048), batch[:, :1, 0, 0].float()


def gaussian(count, dim, seed):
    """Random features that are not negative, like those of a network."""
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)).relu_()


def timed(function, *arguments):
    """A function's result, and the seconds it took."""
    start = time.perf_counter()
    return function(*arguments), round(time.perf_counter() - start, 2)


def neighbours(count, real):
    """Seconds for precision, recall, density and coverage in 128 dimensions, and torch-fidelity's for the first two.

    The second time, the real images' radii are known. torch-fidelity may need 15 GB for 60,000 real images.
    """
    from torch_fidelity.metric_prc import prc_features_to_metric

    from evaluation.inputs.reference import Reference
    from evaluation.scores import metrics

    samples, reference = gaussian(count, 128, 0), Reference(gaussian(real, 128, 1), {})
    found, first = timed(metrics.neighbour_scores, samples, reference)
    again, second = timed(metrics.neighbour_scores, samples, reference)
    options = {"save_cpu_ram": True, "verbose": False}
    theirs, seconds = timed(lambda: prc_features_to_metric(samples, reference.features, **options))
    equal = found == again and all(found[name] == theirs[name] for name in ("precision", "recall"))
    return {"torch-fidelity": seconds, "first": first, "second": second, "equal": equal}


def intervals(count, dim, resamples):
    """Seconds for the intervals of FID and KID with as many real images as samples."""
    from evaluation.inputs.reference import Reference
    from evaluation.scores import certainty, metrics

    samples, real = gaussian(count, dim, 0), gaussian(count, dim, 1)
    reference = Reference(real, metrics.fid_statistics(real))
    names = {"FID": certainty.fid_interval, "KID": certainty.kid_interval}
    return {name: timed(interval, 0.0, samples, reference, resamples)[1] for name, interval in names.items()}


def cached_reference(count, data_dir):
    """Seconds to read the reference of `count` 32x32 images from its cache, including the hash of the images."""
    from evaluation.inputs.reference import load_reference

    config = Config(dataset="folder", data_dir=data_dir)
    split = Images(images(count, 0), torch.full((count,), -1), ())
    arguments = (config, "train", split, Cheap(), torch.device("cpu"))
    load_reference(*arguments)
    start = time.perf_counter()
    load_reference(*arguments)
    return time.perf_counter() - start


SIDES = {"ours": ours, "theirs": theirs}


def in_process(side, *arguments):
    """Run one side in a fresh process. Returns its seconds, peak memory in MiB, and scores."""
    command = [sys.executable, __file__, "--side", side, "--of", *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=384, help="samples, and as many real images")
    parser.add_argument("--cached_images", type=int, default=50_000, help="real images of the cache's measurement")
    counts = {"nargs": 2, "type": int, "metavar": ("SAMPLES", "REAL"), "default": (5000, 30_000)}
    parser.add_argument("--neighbours", **counts, help="of the measurement of precision and recall")
    sizes = {"nargs": 3, "type": int, "metavar": ("SAMPLES", "DIMENSIONS", "RESAMPLES"), "default": (20_000, 512, 100)}
    parser.add_argument("--intervals", **sizes, help="of that of intervals; 50000 2048 100 is the full one")
    parser.add_argument("--inception_weights", help="default: random ones, as good for this")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--of", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        count, weights, data_dir = arguments.of
        start = time.perf_counter()
        scores = SIDES[arguments.side](int(count), weights, data_dir)
        seconds, peak = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": seconds, "peak_MiB": peak, "scores": scores}))
        return
    with tempfile.TemporaryDirectory() as folder:
        weights = arguments.inception_weights or f"{folder}/weights.pth"
        if not arguments.inception_weights:
            random_weights(weights)
        found = {side: in_process(side, arguments.images, weights, folder) for side in ("theirs", "ours")}
        found["ours_cached"] = in_process("ours", arguments.images, weights, folder)
        cached = cached_reference(arguments.cached_images, folder)
    theirs, ours = found["theirs"], found["ours"]
    differences = {
        name: abs(ours["scores"][name] - score) / max(abs(score), 1e-300) for name, score in theirs["scores"].items()
    }
    report = {
        "images": arguments.images,
        "threads": torch.get_num_threads(),
        "calculate_metrics": {key: round(theirs[key], 1) for key in ("seconds", "peak_MiB")},
        "ours": {key: round(ours[key], 1) for key in ("seconds", "peak_MiB")},
        "ours, reference cached": {key: round(found["ours_cached"][key], 1) for key in ("seconds", "peak_MiB")},
        "time_ratio": round(ours["seconds"] / theirs["seconds"], 3),
        "memory_ratio": round(ours["peak_MiB"] / theirs["peak_MiB"], 3),
        "relative_differences": differences,
        f"seconds for precision and recall, {arguments.neighbours}": neighbours(*arguments.neighbours),
        f"seconds for intervals, {arguments.intervals}": intervals(*arguments.intervals),
        f"seconds for the reference of {arguments.cached_images:,} images from the cache": round(cached, 3),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
