"""Own pictures: time to decode, compared with a plain loop, time of a second start, time of a batch, and memory.

Batches from a mapped file are compared with batches from memory; compared sides take turns in one run. Pictures are
made up (smooth noise, JPEG of 178x218) unless --data names a folder. Prints JSON. --parts chooses the measurements;
`limited` limits the process's memory.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import utils  # noqa: F401, before torch is loaded: it says how threads wait

SIZE = (178, 218)  # CelebA's
LARGE = (1024, 768)
TURNS = 5
CASES = {  # name -> (flags, steps in a turn)
    "digits_dcgan": ({"dataset": "digits", "model": "dcgan"}, 40),
    "digits_mlp": ({"dataset": "digits", "model": "mlp"}, 80),
    "cifar10_dcgan": ({"dataset": "cifar10", "model": "dcgan"}, 1),
}


# ---- Pictures ------------------------------------------------------------------------------------------------------


def make_pictures(folder, count, size):
    """JPEG files of smooth noise."""
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True)
    noise = np.random.default_rng(0)
    for i in range(count):
        pixels = noise.integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(folder / f"{i:06}.jpg", quality=90)


def plain_loop(paths, image_size):
    """Read pictures in the simple way, one after the other into one tensor, as this project did before."""
    import numpy as np
    import torch
    from PIL import Image, ImageOps

    images = torch.empty(len(paths), 3, image_size, image_size, dtype=torch.uint8)
    for path, out in zip(paths, images):
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
        image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BILINEAR)
        out.copy_(torch.from_numpy(np.array(image)).permute(2, 0, 1))
    return images


# ---- Parts ---------------------------------------------------------------------------------------------------------


def decoding(arguments, folder):
    """Milliseconds per picture, resized to 64 px, by the plain loop and by all cores (including their start)."""
    if arguments.data:
        return compare_decoding(arguments.data, arguments.images, arguments.turns)
    found = {}
    for count, size in ((arguments.images, SIZE), (arguments.images // 32, LARGE)):
        pictures = folder / str(size[0])
        make_pictures(pictures, count, size)
        found[f"{size[0]}x{size[1]}"] = compare_decoding(pictures, count, arguments.turns)
    return found


def compare_decoding(pictures, count, turns):
    from datasets.decode import How
    from datasets.listing import list_split
    from datasets.workers import decode_all
    from utils.threads import cores

    names = list_split(pictures, "train").names[:count]

    def decode(num_workers):
        with tempfile.TemporaryFile() as file:
            decode_all(pictures, names, How(64, 3), file, num_workers)

    medians = by_turns(
        {
            "plain loop": lambda: plain_loop([pictures / name for name in names], 64),
            "all cores": lambda: decode(cores()),
            "one process": lambda: decode(0),
        },
        turns,
    )
    found = {side: {"ms a picture": round(1000 * value / len(names), 3)} for side, value in medians.items()}
    for side in found:
        found[side]["times as fast"] = round(medians["plain loop"] / medians[side], 2)
    return {"cores": cores(), "pictures": len(names), **found}


def by_turns(sides, turns):
    """The median seconds of each function, called in turns; the first turn is a warm-up."""
    times = {name: [] for name in sides}
    for turn in range(turns + 1):
        for name in sorted(sides, reverse=turn % 2 == 0):
            began = time.perf_counter()
            sides[name]()
            if turn:
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in times.items()}


START = """
import json, sys, time
began = time.perf_counter()
sys.path.insert(0, {root!r})
import train
from datasets import load_split
from training.state import State
from settings.layers import resolve
import torch
flags = {flags!r}
config = resolve(flags)[0]
imported = time.perf_counter()
images = load_split(config)
loaded = time.perf_counter()
state = State(config, images, torch.device("cpu"))
state.G.train(), state.D.train()
train.step(state, config)
stepped = time.perf_counter()
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({{
    "images": len(images.images), "import": imported - began, "data": loaded - imported,
    "networks and first step": stepped - loaded, "data to first step": stepped - imported,
    "anonymous MiB": int(status["RssAnon"].split()[0]) // 1024,
    "peak MiB, pages of the mapped file included": int(status["VmHWM"].split()[0]) // 1024}}))
"""


def starts(arguments, folder):
    """Measure a first and a second start on --data, or on made-up pictures, each in its own process."""
    data = arguments.data
    if not data:
        data = folder / "own"
        make_pictures(data, arguments.images, SIZE)
    flags = {"dataset": "folder", "data_dir": str(data), "base_channels": 8}
    flags |= {"cache_dir": str(arguments.cache_dir or folder / "cache"), "image_size": arguments.image_size}
    code = START.format(root=str(Path(__file__).resolve().parent.parent), flags=flags)
    found = {}
    for name in ("first", "second"):
        done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
        measured = json.loads(done.stdout.splitlines()[-1])
        found[name] = {key: round(value, 2) for key, value in measured.items()}
    return found


def stepping(config, images, count):
    """Make a function that runs `count` training steps on these images."""
    import torch

    import train
    from training.state import State

    state = State(config, images, torch.device("cpu"))
    state.G.train()
    state.D.train()

    def act():
        for _ in range(count):
            train.step(state, config)
        state.pending.clear()  # as the log does

    return act


def steps(arguments, folder):
    """The time of a step on images in memory and in a mapped file, by turns: the ratio of the medians."""
    import numpy as np
    import torch

    from datasets import Images
    from settings.layers import resolve
    from utils.precision import keep_memory

    keep_memory()
    found = {}
    for case, (flags, count) in CASES.items():
        config = resolve(flags)[0]
        shape = (50_000, config.channels, config.image_size, config.image_size)
        whole = torch.randint(0, 256, shape, dtype=torch.uint8)
        whole.numpy().tofile(folder / case)
        with warnings.catch_warnings(action="ignore"):  # nothing writes to it
            mapped = torch.from_numpy(np.memmap(folder / case, np.uint8, "r", shape=shape))
        sides = {
            name: stepping(config, Images(images, torch.zeros(len(images)).long(), ()), count)
            for name, images in (("memory", whole), ("mapped", mapped))
        }
        medians = {name: value / count for name, value in by_turns(sides, 4 * arguments.turns).items()}
        found[case] = {f"ms a step, {name}": round(1000 * value, 3) for name, value in medians.items()}
        found[case]["ratio"] = round(medians["mapped"] / medians["memory"], 3)
    return found


def limited(arguments, folder):
    """Train and score on --data, decoded before, under a limit on this process's memory (RLIMIT_DATA).

    The limit does not count pages of files, which the system can drop. The classifier for scoring is neither trained
    nor tested, since that would take long.
    """
    import torch

    import train
    from datasets import load_split
    from evaluation.evaluator import Evaluator, Wanted
    from evaluation.inputs import features
    from evaluation.inputs.sampling import Generated
    from settings.layers import resolve
    from training.state import State

    limit = arguments.limit * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    flags = {"dataset": "folder", "data_dir": str(arguments.data), "cache_dir": str(arguments.cache_dir)}
    flags |= {"base_channels": 8, "batch_size": 8, "image_size": arguments.image_size, "features": "classifier"}
    config = resolve(flags)[0]
    images = load_split(config)
    refused = False
    try:
        images.images.clone()  # what does not fit
    except RuntimeError:
        refused = True
    state = State(config, images, torch.device("cpu"))
    state.G.train()
    state.D.train()
    for _ in range(50):
        train.step(state, config)
    state.pending.clear()
    features.train_classifier = lambda split, device, epochs, chosen=None: features.Classifier(
        config.image_size, config.channels, len(split.classes)
    ).eval()
    features.examine = lambda network, split, device: 0.0
    device = torch.device("cpu")
    evaluator = Evaluator(config, images, device)
    source = Generated(state.scored, config.z_dim, config.seed, device)
    facts = {"step": state.step, "ema": True, "seed": config.seed}
    (result,), _ = evaluator.evaluate(source, facts, ("modern",), 1000, Wanted(diagnostics=False, neighbours=False))
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "images": len(images.images),
        "MiB of images": images.images.numel() // 2**20,
        "limit MiB": arguments.limit,
        "a copy in memory is refused": refused,
        "steps": state.step,
        "real images scored against": result["protocol"]["num_real"],
        "anonymous MiB at the end": int(status["RssAnon"].split()[0]) // 1024,
    }


PARTS = {"decoding": decoding, "starts": starts, "steps": steps, "limited": limited}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=["decoding", "starts", "steps"])
    parser.add_argument("--images", type=int, default=4000, help="pictures that are made up")
    parser.add_argument("--data", type=Path, help="a folder or archive of pictures, in their place")
    parser.add_argument("--cache_dir", type=Path, help="where they are decoded (default: a folder that is removed)")
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--limit", type=int, default=1024, help="limited: MiB")
    parser.add_argument("--turns", type=int, default=TURNS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for part in arguments.parts:
            place = Path(folder, part)
            place.mkdir()
            print(json.dumps({part: PARTS[part](arguments, place)}, indent=2), flush=True)


if __name__ == "__main__":
    main()
