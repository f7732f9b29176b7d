"""What a study compares: methods that constrain D, the optimizer settings of Miyato et al. 2018, and scores."""

from typing import Any, NamedTuple

from evaluation.scores.registry import scores_of


class Method(NamedTuple):
    """What constrains D: its name in words, and the settings that it consists of, which go before a study's own."""

    label: str
    settings: dict[str, Any]


AUGMENTED = ("color", "translation", "cutout")
# What the paper compares spectral norm with (section 4.1), and the standard GAN.
PAPER = ("none", "batch", "layer", "weight", "weight_clipping", "wgan_gp", "gan_gp", "orthonormal", "spectral")
# The paper's comparison, and beside it R1 and spectral norm under batch norm; then what came after it.
METHODS = {
    "none": Method("nothing", {"d_norm": ("none",)}),
    "batch": Method("batch norm", {"d_norm": ("batch",)}),
    "layer": Method("layer norm", {"d_norm": ("layer",)}),
    "weight": Method("weight norm", {"d_norm": ("weight",)}),
    "weight_clipping": Method(
        "weight clipping (WGAN)", {"d_norm": ("none",), "loss": "wasserstein", "regularizer": ("weight_clipping",)}
    ),
    "wgan_gp": Method("WGAN-GP", {"d_norm": ("none",), "loss": "wasserstein", "regularizer": ("gradient_penalty",)}),
    "gan_gp": Method("GAN-GP", {"d_norm": ("none",), "regularizer": ("gradient_penalty",)}),
    "orthonormal": Method("orthonormal", {"d_norm": ("none",), "regularizer": ("orthonormal",)}),
    "r1": Method("R1", {"d_norm": ("none",), "regularizer": ("r1",)}),
    "spectral": Method("spectral norm", {"d_norm": ("spectral",)}),
    "spectral_batch": Method("spectral + batch norm", {"d_norm": ("spectral", "batch")}),
    "relativistic": Method("relativistic", {"d_norm": ("none",), "loss": "relativistic"}),
    "relativistic_r1": Method(
        "relativistic + R1", {"d_norm": ("none",), "loss": "relativistic", "regularizer": ("r1",)}
    ),
    "relativistic_r1_r2": Method(
        "relativistic + R1 + R2", {"d_norm": ("none",), "loss": "relativistic", "regularizer": ("r1_r2",)}
    ),
    "spectral_relativistic": Method("spectral + relativistic", {"d_norm": ("spectral",), "loss": "relativistic"}),
    "diffaugment": Method("spectral + DiffAugment", {"d_norm": ("spectral",), "augment": AUGMENTED}),
    "adaptive": Method("spectral + adaptive", {"d_norm": ("spectral",), "augment": AUGMENTED, "augment_p": "adaptive"}),
    "lecam": Method(
        "spectral + LeCam", {"d_norm": ("spectral",), "regularizer": ("lecam",), "lecam_start": 100}
    ),  # runs are short
}


def _table_1(lr: float, beta1: float, beta2: float, n_dis: int) -> dict[str, Any]:
    return {"lr_G": lr, "lr_D": lr, "betas": (beta1, beta2), "n_dis": n_dis}


SETTINGS = {  # table 1 of the paper
    "A": _table_1(1e-4, 0.5, 0.9, 5),
    "B": _table_1(1e-4, 0.5, 0.999, 1),
    "C": _table_1(2e-4, 0.5, 0.999, 1),
    "D": _table_1(1e-3, 0.5, 0.9, 5),
    "E": _table_1(1e-3, 0.5, 0.999, 5),
    "F": _table_1(1e-3, 0.9, 0.999, 5),
}


METRICS = scores_of("images", "diagnosis", "modes")  # what a study may show, in the order of its columns
