"""Which settings make no sense together, and which rarely do: each refused or warned of with its reason."""

import itertools

import pytest

from settings import rules
from settings.config import Config, to_flag
from settings.layers import resolve
from utils.errors import UserError


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ({"d_norm": ("spectral", "weight")}, "exclude each other: both rescale the weights"),
        ({"d_norm": ("batch", "layer")}, "exclude each other: both normalise the features"),
        ({"d_norm": ("none", "batch")}, "none cannot be combined"),
        ({"d_norm": ("spectral", "spectral")}, "different names"),
        (
            {"regularizer": ("weight_clipping",), "d_norm": ("spectral",)},
            "with d_norm spectral: the normalization divides",
        ),
        ({"regularizer": ("weight_clipping",), "d_norm": ("weight",)}, "with d_norm weight: the normalization divides"),
        ({"regularizer": ("weight_clipping",), "d_norm": ("layer", "spectral")}, "with d_norm spectral: the normal"),
        ({"regularizer": ("gradient_penalty",), "d_norm": ("batch",)}, "batch normalization makes D's output depend"),
        ({"regularizer": ("gradient_penalty",), "d_norm": ("spectral", "batch")}, "makes D's output depend"),
        ({"regularizer": ("r1",), "d_norm": ("batch",)}, "r1 makes no sense with d_norm batch"),
        ({"regularizer": ("approximate_r2",), "d_norm": ("batch",)}, "approximate_r2 makes no sense with d_norm batch"),
        ({"regularizer": ("approximate_r1", "r1")}, "approximate_r1 and r1 both penalise D's gradient at real images"),
        ({"regularizer": ("r1_r2", "approximate_r1")}, "r1_r2 and approximate_r1 both penalise"),
        ({"regularizer_every": 4}, "regularizer_every needs a penalty on D's gradient: add"),
        (
            {"regularizer_every": 4, "regularizer": ("lecam", "orthonormal")},
            "penalty on D's gradient: add --regularizer r1",
        ),
        ({"regularizer_every": 2, "regularizer": ("weight_clipping",), "d_norm": ("none",)}, "regularizer_every needs"),
        (
            {"compile": True, "regularizer": ("approximate_r1", "r2")},
            "with r2: torch.compile cannot differentiate the penalty twice. Use approximate_r1 or approximate_r2",
        ),
        ({"model": "resnet", "arch_variant": "paper"}, "arch_variant paper is for --model dcgan"),
        ({"model": "mlp", "arch_variant": "paper"}, "arch_variant paper is for --model dcgan"),
        (
            {"compile": True, "regularizer": ("r1",)},
            "compile makes no sense with r1: torch.compile cannot differentiate",
        ),
        ({"regularizer_weight": (1.0,)}, "regularizer_weight needs a regularizer"),
        ({"regularizer": ("none", "r1")}, "regularizer none r1: none cannot be combined"),
        ({"regularizer": ("r1", "r1")}, "regularizer r1 r1: give each name once"),
        ({"regularizer": ("r2", "r1_r2")}, "regularizer r2 r1_r2: r2 and r1_r2 both penalise D's gradient at samples"),
        (
            {"regularizer": ("r1", "lecam"), "regularizer_weight": (1.0,)},
            "regularizer_weight 1.0: give one for each of r1 lecam, or leave it out",
        ),
        ({"regularizer": ("lecam", "r1_r2"), "d_norm": ("batch",)}, "r1_r2 makes no sense with d_norm batch"),
        ({"groups": 4}, "groups 4 is for --model r3gan"),
        ({"model": "r3gan", "groups": 5, "base_channels": 32}, "groups 5: 5 do not divide the 64 channels"),
        ({"model": "r3gan", "attention": 16}, "attention 16 is for --model dcgan or resnet"),
        ({"regularizer": ("r1",), "lecam_start": 5}, "lecam_start is for --regularizer lecam"),
        (
            {"loss": "relativistic", "batch_size": 64, "batch_size_G": 128},
            "batch_size_G 128 makes no sense with loss relativistic, which pairs G's samples with 64 real images",
        ),
        ({"augment": ("none", "color")}, "augment none color: none cannot be combined"),
        ({"augment": ("color", "cutout", "color")}, "augment color cutout color: give each name once"),
        ({"augment_p": "adaptive"}, "augment_p needs an augmentation: --augment color"),
        ({"augment_p": 0.5}, "augment_p needs an augmentation: --augment color"),
        ({"model": "r3gan", "d_norm": ("batch",)}, "d_norm batch is not for r3gan"),
        ({"model": "r3gan", "d_norm": ("weight",)}, "d_norm weight is not for r3gan"),
        ({"lr_cosine": (1e-3, 1e-4, 0.0)}, "lr_cosine 0.001 0.0001 0.0: it ends before it starts"),
        ({"lr_cosine": (1e-3, 0.0, 9.0)}, "lr must be more than 0 throughout"),
        ({"beta2_cosine": (0.9, 1.0, 9.0)}, "beta2 must be less than 1.0"),
        ({"lr_cosine": (1e-3, 1e-4, 9.0), "lr_decay": "linear"}, "lr_cosine replaces lr_decay: give only one"),
        ({"lr_cosine": (1e-3, 1e-4, 9.0), "lr_D": 1e-3}, "lr_cosine replaces lr_D: give only one"),
        ({"ema_half_life_cosine": (0.0, 9.0, 9.0), "ema_decay": 0.0}, "ema_half_life_cosine replaces ema_decay"),
        ({"gamma_cosine": (0.5, 0.1, 9.0)}, "gamma_cosine needs a penalty on D's gradient: add"),
        (
            {"gamma_cosine": (0.5, 0.1, 9.0), "regularizer": ("orthonormal",)},
            "gamma_cosine needs a penalty on D's gradient: add",
        ),
        ({"gamma_cosine": (0.5, 0.1, 9.0), "regularizer": ("r1",), "regularizer_weight": (1.0,)}, "replaces reg"),
        ({"beta2_cosine": (0.9, 0.99, 9.0), "optimizer": "rmsprop"}, "beta2_cosine is for --optimizer adam"),
    ],
)
def test_a_senseless_combination_is_refused_with_its_reason(presets, flags, reason):
    with pytest.raises(UserError, match=reason):
        resolve(flags)


SENSIBLE = [
    *({"regularizer": ("weight_clipping",), "d_norm": (norm,)} for norm in ("none", "batch", "layer")),
    *({"regularizer": ("gradient_penalty",), "d_norm": (norm,)} for norm in ("none", "layer", "spectral", "weight")),
    *({"regularizer": ("r1",), "d_norm": (norm,)} for norm in ("none", "layer", "spectral")),
    *({"regularizer": ("orthonormal",), "d_norm": (norm,)} for norm in ("none", "batch", "spectral")),
    *({"d_norm": pair} for pair in itertools.product(("spectral", "weight"), ("batch", "layer"))),
    {"model": "dcgan", "arch_variant": "paper"},
    {"regularizer": ("r1_r2", "lecam"), "regularizer_weight": (0.1, 0.3), "lecam_start": 7, "loss": "relativistic"},
    {"regularizer": ("lecam", "orthonormal"), "d_norm": ("batch",)},
    {"augment": ("cutout", "color"), "augment_p": "adaptive"},
    {"regularizer": ("approximate_r1", "approximate_r2"), "compile": True, "d_norm": ("none",)},
    {"regularizer": ("approximate_r1", "r2", "lecam"), "regularizer_every": 16},
    {"regularizer": ("gradient_penalty",), "regularizer_every": 4, "gamma_cosine": (1.0, 0.5, 9.0)},
    {"augment": ("translation",), "augment_p": 0.0},
    {"regularizer": ("gradient_penalty",), "d_norm": ("none",), "regularizer_weight": (5.0,)},
]


@pytest.mark.parametrize("flags", SENSIBLE, ids=lambda flags: "-".join(map(to_flag, flags.values())))
def test_a_sensible_combination_is_taken_as_it_is(presets, flags):
    resolved, _ = resolve(flags)
    assert {name: getattr(resolved, name) for name in flags} == flags


def warned(device="cuda", **settings):
    return list(rules.warnings(Config(**settings), device))


def test_warnings_name_an_unbounded_wasserstein_d_and_batch_norm_over_spectral_norm():
    (unbounded,) = warned(loss="wasserstein", d_norm=("none",))
    assert "wasserstein" in unbounded
    assert warned(loss="wasserstein", d_norm=("none",), regularizer=("lecam",)) == [unbounded]
    (unsafe,) = warned(d_norm=("spectral", "batch"))
    assert "Lipschitz" in unsafe
    assert warned() == []
    assert warned(loss="wasserstein", d_norm=("none",), regularizer=("gradient_penalty",)) == []


def test_a_warning_names_what_has_no_effect_without_cuda():
    (idle,) = warned("cpu", amp="fp16", compile=True)
    assert idle == "no effect on a CPU: --compile and --amp fp16 (for CUDA only)"
    assert warned("cuda", amp="fp16", compile=True) == warned("cpu", amp="bf16") == []


@pytest.mark.parametrize("device", ["mps", "xpu"])
def test_a_device_that_was_never_tried_is_warned_of(device):
    (untried,) = warned(device, amp="bf16")
    assert f"never tested on {device}" in untried and "--device cpu" in untried
    assert warned(device, tf32=True)[0].startswith(f"no effect on {device}: --tf32")


def test_warnings_name_settings_that_have_no_effect():
    (late,) = warned(regularizer=("lecam",), total_steps=1000)
    assert "lecam starts at step 1,000, after the end of this run: lower --lecam_start" in late
    assert warned(regularizer=("lecam",), total_steps=1001) == []
    for flags in ({"eval_every": 5, "ema_decay": 0.0}, {"eval_every": 0}):
        (unused,) = warned(eval_own=True, **flags)
        assert "eval_own has no effect" in unused
    assert warned(eval_own=True, eval_every=5) == []
