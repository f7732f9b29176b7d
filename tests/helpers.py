"""What several tests share: small settings, and runs that are started, broken, resumed and compared."""

from pathlib import Path

import torch
from PIL import Image
from torch import nn

import train
from models import build_models
from models.spectral_norm import spectral_norm
from models.weights import SUPPORTED
from training import prepare
from training.checkpoints import checkpoint
from training.checkpoints.run_dir import checkpoints, latest
from training.reporting.logger import read_stats
from utils.files import save

ROOT = Path(__file__).resolve().parent.parent
SMALL = {"base_channels": 4, "z_dim": 8, "batch_size": 8, "num_samples": 100}
TINY = [word for name, value in SMALL.items() for word in (f"--{name}", value)] + ["--total_steps", 2, "--log_every", 1]


def fails(done, *words):
    """The script said why, in words, without a traceback, with exit code 2."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: "), done.stderr
    for word in words:
        assert str(word) in done.stderr, done.stderr


def yaml_file(folder, text, name="settings.yaml"):
    path = folder / name
    path.write_text(text)
    return path


# ---- Images --------------------------------------------------------------------------------------------------------


def random_images(*shape, seed=0):
    """Noise of 256 levels, the same each time: uint8."""
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def constant_images(values, channels, side):
    """An image of a single shade for each of these values: (N, channels, side, side) uint8."""
    return torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, channels, side, side)


def save_image(path, colour, size=(8, 8), mode="RGB"):
    """A picture file of a single colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).convert(mode, palette=Image.Palette.ADAPTIVE).save(path)


class Pixels(nn.Module):
    """An extractor whose features and logits are known: the pixels, and the brightness as two classes."""

    name, resize, sha256, warning = "pixels", "none", "0" * 64, None

    def forward(self, images):
        values = images.flatten(1).double() / 255
        bright = values.mean(1)
        return values, torch.stack([bright, 1 - bright], dim=1)


# ---- Networks ------------------------------------------------------------------------------------------------------


def build(model, image_size=32, seed=0, **settings):
    """A small pair with plain weights, unless the settings say otherwise."""
    torch.manual_seed(seed)
    return build_models(model, image_size, **{"z_dim": 5, "base_channels": 2, "d_norm": "none", **settings})


def paper_size(model, image_size, **settings):
    """The pair in the paper's widths without memory behind it: shapes only."""
    with torch.device("meta"):
        return build_models(model, image_size, d_norm="none", **settings)


def layers_of(network):
    return [module for module in network.modules() if isinstance(module, SUPPORTED)]


def shapes(network, x, kind):
    """The shape, without the batch, after each module of this kind, in order of execution."""
    found = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, output: found.append(tuple(output.shape[1:])))
        for module in network.modules()
        if isinstance(module, kind)
    ]
    network(x)
    for hook in hooks:
        hook.remove()
    return found


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


# Parameters counted by hand: of a convolution, a linear layer and a batch norm.


def conv(i, o, k):
    return i * o * k * k + o


def linear(i, o):
    return i * o + o


def bn(c):
    return 2 * c


# Every kind of layer that has a weight matrix: name -> (layer, one input)
LAYERS = {
    "linear": (lambda: nn.Linear(6, 4), torch.ones(2, 6)),
    "tall linear": (lambda: nn.Linear(3, 7), torch.ones(2, 3)),
    "embedding": (lambda: nn.Embedding(7, 3), torch.tensor([0, 6])),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3), torch.ones(2, 4, 5)),
    "conv2d": (lambda: nn.Conv2d(4, 6, 3), torch.ones(2, 4, 5, 5)),
    "conv3d": (lambda: nn.Conv3d(2, 3, 2), torch.ones(2, 2, 3, 3, 3)),
    "grouped conv1d": (lambda: nn.Conv1d(4, 6, 3, groups=2), torch.ones(2, 4, 5)),
    "grouped conv2d": (lambda: nn.Conv2d(4, 6, 3, groups=2), torch.ones(2, 4, 5, 5)),
    "grouped conv3d": (lambda: nn.Conv3d(2, 4, 2, groups=2), torch.ones(2, 2, 3, 3, 3)),
    "transposed conv1d": (lambda: nn.ConvTranspose1d(4, 6, 3), torch.ones(2, 4, 5)),
    "transposed conv2d": (lambda: nn.ConvTranspose2d(4, 6, 3), torch.ones(2, 4, 5, 5)),
    "transposed conv3d": (lambda: nn.ConvTranspose3d(2, 3, 2), torch.ones(2, 2, 3, 3, 3)),
    "grouped transposed conv1d": (lambda: nn.ConvTranspose1d(4, 6, 3, groups=2), torch.ones(2, 4, 5)),
    "grouped transposed conv2d": (lambda: nn.ConvTranspose2d(4, 6, 3, groups=2), torch.ones(2, 4, 5, 5)),
    "grouped transposed conv3d": (lambda: nn.ConvTranspose3d(4, 4, 2, groups=2), torch.ones(2, 4, 3, 3, 3)),
}


def make(name, dtype=torch.float64, **settings):
    """A layer of LAYERS under spectral_norm(), and an input that it takes."""
    torch.manual_seed(0)
    layer, x = LAYERS[name][0]().to(dtype), LAYERS[name][1]
    return spectral_norm(layer, **settings), x.to(dtype) if x.is_floating_point() else x


def original(layer):
    return layer.parametrizations.weight.original


def vectors(layer):
    """Copies of u and v."""
    return layer.parametrizations.weight[0].u.clone(), layer.parametrizations.weight[0].v.clone()


def output_rows(layer, weight):
    """The rows by hand: what output channel c of group g sees, which a transposed layer stores as [inputs of g, c]."""
    if "Transpose" not in type(layer).__name__:
        return torch.stack([row.flatten() for row in weight])
    size = layer.in_channels // layer.groups
    groups = [weight[g * size : (g + 1) * size] for g in range(layer.groups)]
    return torch.stack([group[:, c].flatten() for group in groups for c in range(weight.size(1))])


@torch.no_grad()
def dense(linear, shape):
    """The matrix of a linear map of (1, *shape), column by column: (outputs, inputs)."""
    columns = torch.eye(torch.Size(shape).numel(), dtype=torch.float64).view(-1, 1, *shape)
    return torch.stack([linear(column).flatten() for column in columns], dim=1)


# ---- Runs ----------------------------------------------------------------------------------------------------------

FAST = SMALL | {"total_steps": 12, "save_every": 5, "sample_every": 100, "log_every": 2}


def start(tmp_path, name="run", **flags):
    """The Config of a new run of a few steps."""
    return prepare({**FAST, "run_dir": str(tmp_path / name), **flags})


def go_on(tmp_path, name="run", **flags):
    """Resume a run; returns its last checkpoint's path."""
    return train.train(prepare({"resume": str(tmp_path / name), **flags}))


def at_step(patch, number, do):
    """Have do() happen in the middle of step `number`, once. patch: what has a setattr(), as builtins has for good."""
    plain, calls = train.generator_step, []

    def wrapped(*args):
        calls.append(None)
        if len(calls) == number:
            do()
        return plain(*args)

    patch.setattr(train, "generator_step", wrapped)


def break_losses(patch, numbers):
    """Have the losses of D's updates with these numbers, counted over all, be NaN."""
    plain, calls = train.discriminator_step, []

    def wrapped(*args):
        loss, real, fake = plain(*args)
        calls.append(None)
        return (loss * float("nan") if len(calls) in numbers else loss), real, fake

    patch.setattr(train, "discriminator_step", wrapped)


def rewrite(path, change):
    """Have change(content) alter what a checkpoint holds."""
    content = checkpoint.read(path)
    change(content)
    save(path, content)


def steps_of(run_dir):
    """The steps of a run's checkpoints."""
    return [step for step, _ in checkpoints(run_dir)]


def logged(run_dir):
    """The steps of a run's statistics."""
    return [line["step"] for line in read_stats(run_dir)]


def assert_same(a, b, where="checkpoint"):
    """Two nests of tensors and plain values are the same, bit for bit."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, pair in enumerate(zip(a, b)):
            assert_same(*pair, f"{where}[{i}]")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


def assert_same_end(*run_dirs):
    """Two runs have the same last checkpoint, but for how many they keep, and the same statistics."""
    ends = [checkpoint.read(latest(run_dir)) for run_dir in run_dirs]
    assert_same(*({**end, "config": {**end["config"], "keep": None}} for end in ends))
    assert_same(*([line | {"seconds_per_step": 0} for line in read_stats(run_dir)] for run_dir in run_dirs), "stats")
