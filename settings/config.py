"""Settings: one flat frozen dataclass, from which the parser, the YAML check and the help are made (see settings.py).

Imports no torch, so that --help is quick.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


def setting(
    default: Any,
    help: str,
    choices: tuple[Any, ...] | None = None,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    below: float | None = None,
    resumable: bool = False,
    stored: bool = True,
    path: bool = False,
    words: tuple[str, ...] = (),
) -> Any:
    """A field of Config. low and high include the bound, above and below exclude it; they hold for each of a tuple.

    resumable: --resume may change it. stored: it says what a run is; the others say where, and stay out of config.yaml.
    path: of a file or folder, where ~ stands for the user's home. words: what it may be in place of a number.
    """
    return field(default=default, metadata={key: value for key, value in locals().items() if key != "default"})


STACKED = {"stacked_digits": "digits", "stacked_mnist": "mnist"}  # three of which are red, green and blue


@dataclass(frozen=True)
class Config:
    """Every setting of a run: name, type, default, choices and help. Flags and YAML keys are these names."""

    # What is trained
    dataset: str = setting(
        "digits",
        "digits ships with scikit-learn; stacked_digits and stacked_mnist are three random digits as red, green and "
        "blue, 1,000 classes; folder takes any directory or .zip archive of images; the others come through "
        "torchvision",
        choices=(
            *("digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "stl10", "folder"),
            *("stacked_digits", "stacked_mnist"),
        ),
    )
    data_dir: str = setting(
        "data",
        "where data sets are kept; for --dataset folder, the images' folder or .zip archive",
        resumable=True,
        path=True,
    )
    cache_dir: str | None = setting(
        None,
        "where decoded images and the features of real ones are kept (default: .cache in data_dir, or beside the "
        "archive)",
        resumable=True,
        path=True,
    )
    num_images: int | None = setting(
        None, "train on so many of the training images, the first of a fixed shuffle (default: all)", low=2, high=2**31
    )
    crop: str = setting(
        "center", "of pictures that are no squares: the centre is taken, or all, squeezed", choices=("center", "none")
    )
    background: tuple[int, int, int] = setting(
        (255, 255, 255), "red, green and blue under transparent parts of pictures", low=0, high=255
    )
    bad_images: str = setting(
        "stop",
        "where pictures cannot be read: stop and list them, or skip them",
        choices=("stop", "skip"),
        resumable=True,
    )
    image_size: int = setting(32, "pixels a side", choices=(8, 16, 32, 48, 64, 128))
    channels: int = setting(3, "1 for grey, 3 for colour", choices=(1, 3))
    model: str = setting("dcgan", "architecture of G and D", choices=("dcgan", "resnet", "mlp", "r3gan"))
    arch_variant: str = setting(
        "code", "dcgan: the widths of the authors' code, or the paper's table 3", choices=("code", "paper")
    )
    base_channels: int | None = setting(None, "width unit of both networks (default: the paper's)", low=1, high=2**14)
    groups: int | None = setting(
        None, "r3gan: groups of its 3x3 convolutions (default: of 16 channels each, as the paper's)", low=1, high=2**14
    )
    mirror: bool = setting(False, "flip half of the training images, drawn anew each time, from left to right")
    z_dim: int = setting(128, "dimension of the latent z ~ N(0, I)", low=1, high=2**20)
    d_norm: tuple[str, ...] = setting(
        ("spectral",),
        "normalization of D, one or more; spectral or weight may stand with batch or layer",
        choices=("none", "spectral", "weight", "batch", "layer"),
    )
    g_sn: bool = setting(False, "spectral normalization in G too")
    conditional: str = setting(
        "none",
        "how both networks know of the class: projection, an embedding in D and batch norms of each class in G; acgan, "
        "which has D tell the classes apart instead; concat, the class beside their inputs",
        choices=("none", "projection", "acgan", "concat"),
    )
    acgan_weight_D: float = setting(
        1.0, "acgan: factor of the classes' cross-entropy on real images in D's loss", low=0
    )
    acgan_weight_G: float = setting(1.0, "acgan: factor of the classes' cross-entropy on samples in G's loss", low=0)
    attention: int | None = setting(
        None, "dcgan, resnet: self-attention on the feature maps of so many pixels a side, in both networks", low=2
    )
    loss: str = setting("hinge", "adversarial loss", choices=("bce", "hinge", "wasserstein", "lsgan", "relativistic"))
    regularizer: tuple[str, ...] = setting(
        ("none",),
        "what else constrains D, one or more; r1_r2 are both of R1 and R2, lecam holds logits near moving averages",
        choices=("none", "weight_clipping", "gradient_penalty", "r1", "r2", "r1_r2", "lecam", "orthonormal"),
    )
    regularizer_weight: tuple[float, ...] | None = setting(
        None, "a factor for each; for weight_clipping, the bound (default: the literature's)", above=0
    )
    lecam_start: int = setting(1000, "lecam: the step from which it counts", low=1)

    augment: tuple[str, ...] = setting(
        ("none",),
        "what D sees all images through, real and generated, one or more (DiffAugment): color changes brightness, "
        "saturation and contrast, translation moves by up to an eighth, cutout blanks a square of half the side",
        choices=("none", "color", "translation", "cutout"),
    )
    augment_p: float | str = setting(
        1.0,
        "how likely each of its transforms is for an image: a number, or adaptive, from 0 on by ADA's rule, after each "
        "of D's updates towards a mean sign of D of 0.6 on real images; the sign is that of the logit less the loss's "
        "boundary (0.5 for lsgan, the middle between real and generated where only differences count, else 0)",
        low=0,
        high=1,
        words=("adaptive",),
    )

    # How it is trained
    batch_size: int = setting(64, "real images in each of D's updates", low=2, high=2**20)
    batch_size_G: int | None = setting(None, "samples in each of G's updates (default: batch_size)", low=2, high=2**20)
    accumulate: int = setting(
        1, "parts in which each batch is computed where it does not fit at once", low=1, resumable=True
    )
    total_steps: int = setting(50_000, "G's updates; each follows n_dis updates of D", low=1, resumable=True)
    num_epochs: int | None = setting(None, "passes of D over the data set, instead of total_steps", low=1)
    n_dis: int = setting(1, "D's updates, each on a fresh batch, for one of G", low=1)
    optimizer: str = setting("adam", "optimizer of G and D", choices=("adam", "rmsprop"))
    lr_G: float = setting(2e-4, "learning rate of G", above=0)
    lr_D: float = setting(2e-4, "learning rate of D", above=0)
    betas: tuple[float, float] = setting((0.5, 0.999), "Adam's two betas", low=0, below=1)
    lr_decay: str = setting("none", "learning rates over the run: constant, or linear to 0", choices=("none", "linear"))
    lr_cosine: tuple[float, float, float] | None = setting(
        None,
        "START END IMAGES: both learning rates, by half a cosine over the first IMAGES real images, in the place of "
        "lr_G, lr_D and lr_decay",
        low=0,
    )
    gamma_cosine: tuple[float, float, float] | None = setting(
        None, "START END IMAGES: likewise the weight of the penalty on D's gradient", low=0
    )
    beta2_cosine: tuple[float, float, float] | None = setting(
        None, "START END IMAGES: likewise the second of Adam's betas", low=0
    )
    ema_half_life_cosine: tuple[float, float, float] | None = setting(
        None,
        "START END IMAGES: likewise, in the place of ema_decay, the real images in which the moving average forgets "
        "half",
        low=0,
    )
    ema_decay: float = setting(
        0.999, "decay of the moving average of G that is sampled and scored; 0: none", low=0, below=1
    )
    amp: str = setting(
        "none",
        "on CUDA: both networks in half precision; power iteration, losses and penalties stay in float32",
        choices=("none", "bf16", "fp16"),
    )
    tf32: bool = setting(False, "on CUDA: matrix products and convolutions with 10 bits of mantissa", resumable=True)
    compile: bool = setting(False, "on CUDA: torch.compile both networks", resumable=True)
    deterministic: bool = setting(False, "on CUDA: only algorithms that give the same bits each time", resumable=True)
    on_nan: str = setting(
        "stop",
        "where a loss or weight is not finite: stop, or go back to the last checkpoint with another seed, thrice at "
        "most",
        choices=("stop", "rollback"),
        resumable=True,
    )
    seed: int = setting(0, "of weights, data order and noise", low=0, high=2**32 - 1)
    device: str = setting("auto", "auto (CUDA where there is one), cpu, cuda or cuda:N", resumable=True)
    threads: int | None = setting(
        None,
        "CPU threads that compute a step (default: by the networks' work, one for small ones, at most the cores; a "
        "resumed run keeps its number)",
        low=1,
        high=2**10,
        resumable=True,
    )

    # What is written while it trains, and how often, in steps of G
    log_every: int = setting(100, "losses and gradient norms to stats.jsonl", low=1, resumable=True)
    sample_every: int = setting(1000, "a grid of samples from a fixed z", low=1, resumable=True)
    save_every: int = setting(5000, "a checkpoint", low=1, resumable=True)
    keep: int = setting(3, "checkpoints kept, the newest ones", low=1, resumable=True)
    open: bool = setting(False, "open the run's report.html in the browser", resumable=True, stored=False)
    tensorboard: bool = setting(False, "also write the statistics for TensorBoard", resumable=True)
    eval_every: int = setting(0, "scores during training; 0: only after it", low=0, resumable=True)
    eval_kid: bool = setting(True, "KID among them, which takes longest on small images", resumable=True)
    eval_neighbours: bool = setting(False, "precision, recall, density and coverage among them", resumable=True)
    eval_own: bool = setting(False, "also of G's own weights, beside those of their moving average", resumable=True)
    audit_every: int = setting(
        0, "D's singular values, Lipschitz bound and steepest gradient to audits/; 0: never", low=0, resumable=True
    )

    # How it is scored
    num_samples: int | None = setting(
        None,
        "samples that are scored, in the place of 50,000; other counts of a protocol follow in proportion (default: "
        "50,000, fewer for small data sets)",
        low=100,
        resumable=True,
    )
    protocol: tuple[str, ...] = setting(
        ("modern",),
        "how scores are counted, one or more: modern is 50,000 samples against the training images; paper an IS of "
        "10 x 5,000 and a FID of 5,000 against the test images; test 10,000 against the test images",
        choices=("modern", "paper", "test"),
        resumable=True,
    )
    features: str = setting(
        "auto",
        "what looks at the images: torch-fidelity's Inception, or a classifier trained on the data set "
        "(auto: classifier for digits, mnist, fashion_mnist and stacks)",
        choices=("auto", "inception", "classifier"),
        resumable=True,
    )
    inception_weights: str | None = setting(
        None, "a local copy of torch-fidelity's Inception weights", resumable=True, path=True
    )

    # Where
    run_dir: str | None = setting(None, "default: runs/DATASET_MODEL_LOSS_NORM_seedK", stored=False, path=True)
    size: str | None = setting(
        None,
        "small: the preset for two CPU cores and a quarter of an hour, where there is one",
        ("small",),
        stored=False,
    )
    config: str | None = setting(None, "YAML file of settings, over the preset", stored=False, path=True)
    init_from: str | None = setting(
        None, "start a new run from the weights of a run, a checkpoint or an exported generator", path=True
    )
    resume: str | None = setting(None, "go on with the run in this directory", stored=False, path=True)


FIELDS = {f.name: f for f in dataclasses.fields(Config)}


def stored(config: Config) -> dict[str, Any]:
    """The settings that say what a run is, as a plain dict of YAML's and checkpoints' types."""
    values = {name: getattr(config, name) for name, f in FIELDS.items() if f.metadata["stored"]}
    if config.num_epochs is not None:
        values.pop("total_steps")
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def to_yaml(config: Config) -> str:
    """The stored settings as YAML text that read_yaml() takes back to the same values."""
    return yaml.safe_dump(stored(config), sort_keys=False)


def default_run_dir(config: Config) -> Path:
    """runs/DATASET_MODEL_LOSS_NORM_seedK, with regularizer, augmentation and how it is conditional beside the norm."""
    norm = "-".join(
        [
            *config.d_norm,
            *(name for name in (*config.regularizer, config.conditional, *config.augment) if name != "none"),
        ]
    )
    return Path("runs") / f"{config.dataset}_{config.model}_{config.loss}_{norm}_seed{config.seed}"


def differences(before: Config, after: Config) -> dict[str, tuple[Any, Any]]:
    """What differs between two configurations: {setting: (its value before, its value after)}, where aside."""
    old, new = stored(before), stored(after)
    return {name: (old.get(name), new.get(name)) for name in FIELDS if old.get(name) != new.get(name)}


def comparison(configs: Mapping[str, Config]) -> Iterator[str]:
    """Sentences about the settings in which configurations {name: Config} differ, each with everyone's value."""
    for setting in FIELDS:
        values = {name: stored(config).get(setting) for name, config in configs.items()}
        if any(value != next(iter(values.values())) for value in values.values()):
            yield f"{setting}: " + ", ".join(f"{value} ({name})" for name, value in values.items())


def to_flag(value: Any) -> str:
    """A setting's value as one would type it: (0.5, 0.999) -> '0.5 0.999'."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
