"""A step on an accelerator neither waits for it nor needs what only a CPU has: seen on a device without numbers."""

import json

import pytest
import standin

from losses import LOSSES, REGULARIZERS
from models import CONDITIONAL
from models.augmentation import AUGMENTATIONS
from models.normalization import D_NORMS

pytestmark = pytest.mark.skipif(not hasattr(standin.backend_registration, standin.SETUP), reason="needs torch 2.9")
ADAPTIVE = {"augment": tuple(AUGMENTATIONS), "augment_p": "adaptive"}
PLAIN, LECAM = {"model": "mlp", "d_norm": ("none",)}, {"lecam_start": 1, "steps": 2}  # the first step is before it
COSINES = {f"{name}_cosine": (0.2, 0.1, 1e3) for name in ("lr", "gamma", "beta2", "ema_half_life")}
CASES = [
    *(PLAIN | {"regularizer": (name,)} | (LECAM if name == "lecam" else {}) for name in REGULARIZERS),
    *(PLAIN | {"loss": name, **ADAPTIVE} for name in LOSSES),
    *({"model": "dcgan", "d_norm": (name,)} for name in D_NORMS),
    *({"model": "mlp", "conditional": name, "accumulate": 2} for name in CONDITIONAL if name != "projection"),
    {"model": "dcgan", "d_norm": ("spectral", "batch"), "g_sn": True, "mirror": True, "beside": True, "ema_decay": 0.0},
    {"model": "resnet", "d_norm": ("none",), "regularizer": ("gradient_penalty",), "conditional": "projection"},
    {"model": "resnet", "channels": 3, "attention": 4, "augment": ("color",), "augment_p": 0.5, "optimizer": "rmsprop"},
    {"model": "r3gan", "loss": "relativistic", "regularizer": ("r1_r2",), "conditional": "projection", **COSINES},
]


def test_a_step_waits_for_nothing_and_needs_no_float64(forks):
    ended = forks.run("tests/standin.py", json.dumps(CASES))
    assert ended.returncode == 0, ended.stderr


def test_what_waits_or_needs_float64_would_be_seen(forks):
    ended = forks.run("tests/standin.py", "FAULTS")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found.keys() == standin.FAULTS.keys() and all(found.values()), found
