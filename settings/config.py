"""The settings of a run: one flat frozen dataclass. Flags, --help and the checks of YAML files are made from it.

Imports no torch, so that --help is quick.
"""

import dataclasses
import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

STACKED = {"stacked_digits": "digits", "stacked_mnist": "mnist"}  # each image is three digits in red, green and blue
DOUBLE = ("gradient_penalty", "r1", "r2", "r1_r2")  # penalties on D's gradient that need a second derivative
PENALTIES = (*DOUBLE, "approximate_r1", "approximate_r2")  # all penalties on D's gradient at single images


def setting(
    default: Any,
    help: str,
    group: str,
    choices: tuple[Any, ...] | None = None,
    low: float | None = None,
    above: float | None = None,
    high: float = 2**53,
    below: float | None = None,
    resumable: bool = False,
    stored: bool = True,
    path: bool = False,
    words: tuple[str, ...] = (),
    metavar: tuple[str, ...] | None = None,
    replaces: tuple[str, ...] = (),
    resets: tuple[tuple[str, tuple[str, ...]], ...] = (),
) -> Any:
    """Define a field of Config. low and high are inclusive bounds, above and below exclusive, of each tuple element.

    high: by default the largest whole number up to which a float is exact.

    group: its heading in --help. resumable: --resume may change it. stored: it is written to config.yaml, which tells
    what a run is, not where. path: a file or folder, in which ~ is the user's home. words: allowed instead of a number.
    replaces: settings of earlier layers that are dropped if this one is given. resets: settings that are dropped if
    this one changes, each with those of its values that keep it.
    """
    return field(default=default, metadata={key: value for key, value in locals().items() if key != "default"})


GROUPS = ("basics", "training images", "networks", "losses and penalties", "training", "output", "scores", "hardware")
basic, images, networks, losses, training = (functools.partial(setting, group=title) for title in GROUPS[:5])
output, scores, hardware = (functools.partial(setting, group=title, resumable=True) for title in GROUPS[5:])
cosine = functools.partial(training, low=0, metavar=("START", "END", "IMAGES"))


@dataclass(frozen=True)
class Config:
    """Every setting of a run: name, type, default, choices and help. Flags and YAML keys are these names."""

    dataset: str = basic(
        "digits",
        "training data. digits comes with scikit-learn; folder is any directory or .zip archive of images; "
        "stacked_digits and stacked_mnist show three random digits in red, green and blue (1,000 classes); torchvision "
        "downloads the others",
        choices=("digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "stl10", "folder", *STACKED),
    )
    data_dir: str = basic(
        "data", "folder of the data sets; for --dataset folder, your images", resumable=True, path=True
    )
    cache_dir: str | None = images(
        None, "cache of decoded images and features (default: .cache in or next to data_dir)", resumable=True, path=True
    )
    num_images: int | None = images(
        None, "train on N of the training images, the first N of a fixed shuffle (default: all)", low=2, high=2**31
    )
    crop: str = images(
        "center",
        "how to make non-square images square. center: crop the centre; none: resize without keeping the aspect ratio",
        choices=("center", "none"),
    )
    class_order: str = images(
        "natural",
        "order of class folders with numbers as names. natural: 1, 2, 10; text: 1, 10, 2, as in runs of old versions",
        choices=("natural", "text"),
        stored=False,
    )
    background: tuple[int, int, int] = images(
        (255, 255, 255), "colour behind transparent pixels", low=0, high=255, metavar=("RED", "GREEN", "BLUE")
    )
    bad_images: str = images(
        "stop", "if images cannot be read: stop and list them, or skip them", choices=("stop", "skip"), resumable=True
    )
    image_size: int = basic(32, "height and width of the images in pixels", choices=(8, 16, 32, 48, 64, 128))
    channels: int = images(3, "1 for grey, 3 for colour", choices=(1, 3))
    model: str = basic("dcgan", "architecture of G and D", choices=("dcgan", "resnet", "mlp", "r3gan"))
    arch_variant: str = networks(
        "code", "dcgan only: the widths in the authors' code, or in the paper's table 3", choices=("code", "paper")
    )
    base_channels: int | None = networks(None, "base width of G and D (default: the paper's)", low=1, high=2**14)
    groups: int | None = networks(
        None, "r3gan only: groups of its 3x3 convolutions (default: 16 channels each, as published)", low=1, high=2**14
    )
    mirror: bool = images(False, "flip each training image left to right with probability 0.5 in each pass")
    z_dim: int = networks(128, "dimension of the latent z ~ N(0, I)", low=1, high=2**20)
    d_norm: tuple[str, ...] = basic(
        ("spectral",),
        "normalization of D; spectral or weight can be combined with batch or layer",
        choices=("none", "spectral", "weight", "batch", "layer"),
    )
    g_sn: bool = networks(False, "use spectral normalization in G as well")
    conditional: str = networks(
        "none",
        "how class labels enter the networks. projection: embedding in D, class-conditional batch norm in G; acgan: "
        "auxiliary classifier in D, same G; concat: one-hot label appended to the inputs; none: unconditional",
        choices=("none", "projection", "acgan", "concat"),
    )
    acgan_weight_D: float = losses(1.0, "acgan only: weight of the classification loss on real images in D", low=0)
    acgan_weight_G: float = losses(1.0, "acgan only: weight of the classification loss on samples in G", low=0)
    attention: int | None = networks(
        None, "dcgan and resnet only: add self-attention to G and D at feature maps of N x N pixels", low=2
    )
    loss: str = basic("hinge", "adversarial loss", choices=("bce", "hinge", "wasserstein", "lsgan", "relativistic"))
    regularizer: tuple[str, ...] = losses(
        ("none",),
        "regularization of D. r1_r2: R1 plus R2; approximate_r1 and _r2: finite differences instead of a second "
        "derivative; lecam: keeps the logits near their moving averages",
        choices=("none", "weight_clipping", *PENALTIES, "lecam", "orthonormal"),
        resets=(("regularizer_weight", ()), ("gamma_cosine", PENALTIES), ("regularizer_every", PENALTIES)),
    )
    regularizer_weight: tuple[float, ...] | None = losses(
        None, "weight or bound of each regularizer (default: the literature's)", above=0, replaces=("gamma_cosine",)
    )
    regularizer_every: int = losses(
        1, "apply penalties on D's gradient in every N-th update of D only, with N times the weight", low=1
    )
    lecam_start: int = losses(1000, "lecam only: first step with this regularizer", low=1)

    augment: tuple[str, ...] = images(
        ("none",),
        "DiffAugment: transform every image that D sees, real or generated. color changes brightness, saturation and "
        "contrast; translation shifts by up to 1/8 of the side; cutout blanks out a square of half the side",
        choices=("none", "color", "translation", "cutout"),
    )
    augment_p: float | str = images(
        1.0,
        "probability of each transform. adaptive: ADA's rule, which starts at 0 and adjusts it after each update of "
        "D until the mean sign of D's logits on real images is 0.6",
        low=0,
        high=1,
        words=("adaptive",),
    )

    batch_size: int = basic(64, "real images in each update of D", low=2, high=2**20)
    batch_size_G: int | None = training(None, "samples in each update of G (default: batch_size)", low=2, high=2**20)
    accumulate: int = hardware(1, "compute each batch in N parts, if it does not fit into memory at once", low=1)
    total_steps: int = basic(
        50_000, "updates of G, each after n_dis updates of D", low=1, resumable=True, replaces=("num_epochs",)
    )
    num_epochs: int | None = training(
        None, "passes of D over the training data, instead of total_steps", low=1, replaces=("total_steps",)
    )
    n_dis: int = training(1, "updates of D, each on a new batch, for each update of G", low=1)
    optimizer: str = training("adam", "optimizer of G and D", choices=("adam", "rmsprop"))
    lr_G: float = training(2e-4, "learning rate of G", above=0, replaces=("lr_cosine",))
    lr_D: float = training(2e-4, "learning rate of D", above=0, replaces=("lr_cosine",))
    betas: tuple[float, float] = training(
        (0.5, 0.999), "the two betas of Adam", low=0, below=1, replaces=("beta2_cosine",)
    )
    lr_decay: str = training(
        "none", "linear: both learning rates fall to 0 by the end", choices=("none", "linear"), replaces=("lr_cosine",)
    )
    lr_cosine: tuple[float, float, float] | None = cosine(
        None,
        "move both learning rates from START to END, along half a cosine over the first IMAGES real images, instead "
        "of lr_G, lr_D and lr_decay",
        replaces=("lr_G", "lr_D", "lr_decay"),
    )
    gamma_cosine: tuple[float, float, float] | None = cosine(
        None, "as lr_cosine, for the weight of a penalty on D's gradient", replaces=("regularizer_weight",)
    )
    beta2_cosine: tuple[float, float, float] | None = cosine(None, "as lr_cosine, for the second beta of Adam")
    ema_half_life_cosine: tuple[float, float, float] | None = cosine(
        None, "as lr_cosine, for the half-life, in images, of the EMA of G", replaces=("ema_decay",)
    )
    ema_decay: float = training(
        0.999, "decay of the moving average (EMA) of G; 0: no EMA", low=0, below=1, replaces=("ema_half_life_cosine",)
    )
    amp: str = hardware(
        "none",
        "train in half precision: bf16 on CUDA and on CPUs that are faster in it, fp16 on CUDA only; auto: bf16 if "
        "it is faster",
        choices=("none", "auto", "bf16", "fp16"),
    )
    tf32: bool = hardware(False, "CUDA only: allow TF32 in matrix products and convolutions")
    compile: bool = hardware(False, "CUDA only: use torch.compile for G and D")
    deterministic: bool = hardware(False, "CUDA only: use only deterministic algorithms")
    on_nan: str = training(
        "stop",
        "if a loss or weight is not finite: stop, or go back to the last checkpoint with another seed, at most 3 times",
        choices=("stop", "rollback"),
        resumable=True,
    )
    seed: int = basic(0, "seed of all random numbers: weights, data order, noise", low=0, high=2**32 - 1)
    device: str = basic("auto", "auto (the first of cuda, mps, xpu and cpu), one of these, or cuda:N", resumable=True)
    threads: int | None = hardware(
        None, "CPU threads (default: chosen by network size; a resumed run keeps its number)", low=1, high=2**10
    )

    log_every: int = output(100, "write losses and gradient norms to stats.jsonl every N steps", low=1)
    sample_every: int = output(1000, "draw a grid of samples from a fixed z every N steps", low=1)
    save_every: int = output(5000, "save a checkpoint every N steps", low=1)
    keep: int = output(3, "keep only the newest N checkpoints", low=1)
    open: bool = output(False, "open the run's report.html in the browser", stored=False)
    tensorboard: bool = output(False, "also write the statistics for TensorBoard")
    eval_every: int = scores(0, "score every N steps during training; 0: only at the end", low=0)
    eval_kid: bool = scores(True, "compute KID during training; on by default, --no_eval_kid is faster")
    eval_neighbours: bool = scores(False, "also compute precision, recall, density and coverage")
    eval_own: bool = scores(False, "during training, score G itself as well as its moving average")
    audit_every: int = output(
        0, "write D's singular values, Lipschitz bound and steepest gradient to audits/ every N steps; 0: never", low=0
    )

    num_samples: int | None = scores(
        None, "samples to score; a protocol's other counts follow (default: 50,000, fewer for small data sets)", low=100
    )
    protocol: tuple[str, ...] = scores(
        ("modern",),
        "what is compared. modern: 50,000 samples with the training images; paper: IS of 10 x 5,000 samples, FID of "
        "5,000 with the test images; test: 10,000 samples with the test images",
        choices=("modern", "paper", "test"),
    )
    features: str = scores(
        "auto",
        "feature extractor. inception: torch-fidelity's; classifier: trained on the data set first; auto: "
        "classifier for digits, mnist, fashion_mnist, stacked_digits and stacked_mnist, inception for the others",
        choices=("auto", "inception", "classifier"),
    )
    inception_weights: str | None = scores(None, "local copy of torch-fidelity's Inception weights", path=True)

    run_dir: str | None = basic(
        None, "folder of the run (default: runs/DATASET_MODEL_LOSS_NORM_seedK)", stored=False, path=True
    )
    size: str | None = basic(
        None, "preset of this size; small takes about 15 minutes on two CPU cores", choices=("small",), stored=False
    )
    config: str | None = basic(None, "YAML file of settings, which override the preset", stored=False, path=True)
    init_from: str | None = networks(
        None, "start from the weights of a run, a checkpoint or an exported generator", path=True
    )
    resume: str | None = basic(None, "continue the run in this folder", stored=False, path=True)


FIELDS = {f.name: f for f in dataclasses.fields(Config)}


def stored(config: Config) -> dict[str, Any]:
    """Return the settings that define a run as a dict of plain types, for YAML files and checkpoints."""
    values = {name: getattr(config, name) for name, f in FIELDS.items() if f.metadata["stored"]}
    if config.num_epochs is not None:
        values.pop("total_steps")
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def to_yaml(config: Config) -> str:
    """Return the stored settings as YAML text, which read_yaml() turns back into the same values."""
    return yaml.safe_dump(stored(config), sort_keys=False)


def default_run_dir(config: Config) -> Path:
    """Return runs/DATASET_MODEL_LOSS_NORM_seedK; regularizers, --conditional and augmentations follow the norm."""
    more = [name for name in (*config.regularizer, config.conditional, *config.augment) if name != "none"]
    norm = "-".join([*config.d_norm, *more])
    return Path("runs") / f"{config.dataset}_{config.model}_{config.loss}_{norm}_seed{config.seed}"


def differences(*configs: Config) -> dict[str, tuple[Any, ...]]:
    """Return the stored settings that differ between configurations: {setting: the value in each}."""
    each = [stored(config) for config in configs]
    values = {name: tuple(settings.get(name) for settings in each) for name in FIELDS}
    return {name: those for name, those in values.items() if any(value != those[0] for value in those)}


def to_flag(value: Any) -> str:
    """Return a setting's value as one would type it: (0.5, 0.999) -> '0.5 0.999'."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
