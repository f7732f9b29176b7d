"""The sides of a study: methods that constrain D, optimizer settings of Miyato et al. 2018, and scores."""

from typing import Any, NamedTuple

from evaluation.scores.registry import scores_of


class Method(NamedTuple):
    """A method that constrains D: its label, and its settings, which override a study's own."""

    label: str
    settings: dict[str, Any]


NONE, SPECTRAL = {"d_norm": ("none",)}, {"d_norm": ("spectral",)}
WASSERSTEIN, RELATIVISTIC = {"loss": "wasserstein"}, {"loss": "relativistic"}
AUGMENTED = SPECTRAL | {"augment": ("color", "translation", "cutout")}
# The methods that the paper compares (section 4.1), and the standard GAN.
PAPER = ("none", "batch", "layer", "weight", "weight_clipping", "wgan_gp", "gan_gp", "orthonormal", "spectral")
# The paper's methods, with R1 and spectral norm under batch norm among them; then later methods.
METHODS = {
    "none": Method("nothing", NONE),
    "batch": Method("batch norm", {"d_norm": ("batch",)}),
    "layer": Method("layer norm", {"d_norm": ("layer",)}),
    "weight": Method("weight norm", {"d_norm": ("weight",)}),
    "weight_clipping": Method("weight clipping (WGAN)", NONE | WASSERSTEIN | {"regularizer": ("weight_clipping",)}),
    "wgan_gp": Method("WGAN-GP", NONE | WASSERSTEIN | {"regularizer": ("gradient_penalty",)}),
    "gan_gp": Method("GAN-GP", NONE | {"regularizer": ("gradient_penalty",)}),
    "orthonormal": Method("orthonormal", NONE | {"regularizer": ("orthonormal",)}),
    "r1": Method("R1", NONE | {"regularizer": ("r1",)}),
    "spectral": Method("spectral norm", SPECTRAL),
    "spectral_batch": Method("spectral + batch norm", {"d_norm": ("spectral", "batch")}),
    "relativistic": Method("relativistic", NONE | RELATIVISTIC),
    "relativistic_r1": Method("relativistic + R1", NONE | RELATIVISTIC | {"regularizer": ("r1",)}),
    "relativistic_r1_r2": Method("relativistic + R1 + R2", NONE | RELATIVISTIC | {"regularizer": ("r1_r2",)}),
    "spectral_relativistic": Method("spectral + relativistic", SPECTRAL | RELATIVISTIC),
    "diffaugment": Method("spectral + DiffAugment", AUGMENTED),
    "adaptive": Method("spectral + adaptive", AUGMENTED | {"augment_p": "adaptive"}),
    "r1_lazy_4": Method("R1, lazy 4", NONE | {"regularizer": ("r1",), "regularizer_every": 4}),
    "r1_lazy_16": Method("R1, lazy 16", NONE | {"regularizer": ("r1",), "regularizer_every": 16}),
    "approximate_r1": Method("approximate R1", NONE | {"regularizer": ("approximate_r1",)}),
    # A study's runs are short, so LeCam starts early.
    "lecam": Method("spectral + LeCam", SPECTRAL | {"regularizer": ("lecam",), "lecam_start": 100}),
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


METRICS = scores_of("images", "diagnosis", "modes")  # scores that a study may show, in the order of its columns
