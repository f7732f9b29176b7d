"""A stand-in for an accelerator: a device without numbers, on which a wait or a tensor of another device raises.

torch lets a process register a device, once and for all, and so this is run in forks. Under FakeTensorMode its tensors
have shapes, dtypes and a device, which torch checks, but no numbers: what has to know one raises.

    python tests/standin.py CASES   # steps under each of these settings, a JSON list; an error names the settings
    python tests/standin.py FAULTS  # prints which of FAULTS raise in D's loss
"""

import contextlib
import dataclasses
import json
import sys
import warnings

import torch
from helpers import SMALL
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import datasets.batches
import train
import training.state
from datasets import Classes, Images
from datasets.images import Origin
from settings.layers import resolve
from training.state import State

SETUP = "_setup_privateuseone_for_python_backend"  # of torch >= 2.9
PARTS = [getattr(backend_registration, name, object)() for name in ("_DummyBackendModule", "_DummyPrivateUse1Hook")]
# What a loss must not do with D's logits (8, 1) on the device
FAULTS = {
    "item": lambda logits: logits.mean().item(),
    "tolist": lambda logits: logits.tolist(),
    "bool": lambda logits: 1.0 if logits.mean() > 0 else 0.0,
    "all finite": lambda logits: all(logits.isfinite()),
    "nonzero": lambda logits: logits[logits > 0],
    "copy to the host": lambda logits: logits.cpu(),
    "copy of a number": lambda logits: torch.zeros(()).copy_(logits.mean()),
    "copy from the host": lambda logits: torch.ones(8, 1).to(logits.device),
    "index of the host": lambda logits: logits[torch.arange(8)],
    "sum with the host": lambda logits: logits + torch.ones(8, 1),
    "float64": lambda logits: logits.double(),
}


class Generator(torch.Generator):
    """One that says it is the device's: torch has none for it, and no number is drawn here."""

    def __new__(cls, device="cpu"):
        made = super().__new__(cls)
        made.where = torch.device(device)
        return made

    @property
    def device(self):
        return self.where


class Watched(TorchDispatchMode):
    """Raises for what FakeTensorMode lets pass: copies between devices that are waited for, and float64."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        given, made = (
            [x for x in tree_leaves(part) if isinstance(x, torch.Tensor)] for part in ((args, kwargs), result)
        )
        copies = function.overloadpacket.__name__ in ("_to_copy", "copy_")
        # A kernel takes a number of the host, a tensor without dimensions, as it takes one of Python.
        kinds = [x.device.type for x in given if copies or x.dim()] + [x.device.type for x in made]
        sent = copies and kwargs.get("non_blocking") and kinds[-1] == "standin"
        if len(set(kinds)) > 1 and not sent:
            raise RuntimeError(f"{function} is of {' and '.join(sorted(set(kinds)))}")
        if "standin" in kinds and any(x.dtype == torch.float64 for x in given + made):
            raise RuntimeError(f"{function} is in float64")
        return result


class Inline:
    """A ThreadPoolExecutor whose thread is this one: modes of torch are a thread's own."""

    def __init__(self, count):
        pass

    def submit(self, function):
        self.result = function
        return self


def to_device(network, device):
    """Module.to(): its tensors are replaced by empty ones on the device, in the same layout."""
    for module in network.modules():
        for kept, kind in ((module._parameters, nn.Parameter), (module._buffers, torch.Tensor.detach)):
            for name, x in kept.items():
                if x is not None:
                    kept[name] = kind(torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=device))
    return network


def begin():
    """Register the device; from here on, networks and random numbers can be on it."""
    getattr(backend_registration, SETUP)("standin", *PARTS)  # which torch does not keep alive
    torch.autograd.set_multithreading_enabled(False)
    warnings.simplefilter("ignore")  # to copy a tensor without numbers is warned of
    FakeTensorMode.__deepcopy__ = lambda mode, memo: mode
    torch.Generator, nn.Module.to = Generator, to_device
    classes = Classes(("a", "b"), (20, 20))
    training.state.classes_of = lambda config, images: None if config.conditional == "none" else classes


@contextlib.contextmanager
def on_device(beside=False, **flags):
    """A State on the device, and its Config; within, all tensors are without numbers, and what waits raises.

    beside: the images lie in the host's memory.
    """
    config, _ = resolve({**SMALL, **flags})
    if beside:
        datasets.batches.fits, datasets.batches.ThreadPoolExecutor = (lambda images, device: False), Inline
    with FakeTensorMode(allow_non_fake_inputs=False):
        pixels = torch.empty(40, config.channels, config.image_size, config.image_size, dtype=torch.uint8)
        images = Images(pixels, torch.zeros(40, dtype=torch.int64), ("a", "b"), Origin("", {}, {}, ()))
        state = State(config, images, torch.device("standin:0"))
        with Watched():
            yield state, config


def run(steps=1, **flags):
    with on_device(**flags) as (state, config):
        for _ in range(steps):
            train.step(state, config)
        assert state.pending[-1].device.type == "standin"


def raises(fault):
    """Whether a step does, with this in D's loss."""
    with on_device(d_norm=("none",)) as (state, config):
        d_loss = state.objective.d_loss
        state.objective = dataclasses.replace(
            state.objective, d_loss=lambda real, fake: (fault(real), d_loss(real, fake))[1]
        )
        try:
            train.step(state, config)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return None


def main():
    begin()
    if sys.argv[1] == "FAULTS":
        print(json.dumps({name: raises(fault) for name, fault in FAULTS.items()}))
        return
    for case in json.loads(sys.argv[1]):
        try:
            run(**case)
        except Exception as error:
            raise RuntimeError(f"{case}") from error


if __name__ == "__main__":
    main()
