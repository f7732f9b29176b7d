"""Settings: one flat frozen dataclass, from which the parser, the YAML check and the help are made (see parser.py).

Precedence: default < preset (configs/DATASET_MODEL.yaml) < --config < flag. Imports no torch, so that --help is quick.
"""

import dataclasses
import difflib
import reprlib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from .errors import UserError

YAML_LIMIT = 2**20  # characters
LARGEST = 2**53  # whole number that means the same everywhere
CONFIGS_DIR = Path(__file__).resolve().parent.parent / "configs"


def setting(default, help, choices=None, low=None, above=None, high=None, below=None, resumable=False, stored=True):
    """A field of Config. low and high include the bound, above and below exclude it; they hold for each of a tuple.

    resumable: --resume may change it. stored: it says what a run is; the others say where, and stay out of config.yaml.
    """
    return field(default=default, metadata={key: value for key, value in locals().items() if key != "default"})


@dataclass(frozen=True)
class Config:
    """Every setting of a run: name, type, default, choices and help. Flags and YAML keys are these names."""

    # What is trained
    dataset: str = setting(
        "digits",
        "digits ships with scikit-learn; folder takes any directory of images; the others come through torchvision",
        choices=("digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "stl10", "folder"),
    )
    data_dir: str = setting(
        "data", "where data sets are kept; for --dataset folder, the images' folder", resumable=True
    )
    image_size: int = setting(32, "pixels a side", choices=(8, 16, 32, 48, 64, 128))
    channels: int = setting(3, "1 for grey, 3 for colour", choices=(1, 3))
    model: str = setting("dcgan", "architecture of G and D", choices=("dcgan", "resnet", "mlp"))
    arch_variant: str = setting(
        "code", "dcgan: the widths of the authors' code, or the paper's table 3", choices=("code", "paper")
    )
    base_channels: int | None = setting(None, "width unit of both networks (default: the paper's)", low=1, high=2**14)
    z_dim: int = setting(128, "dimension of the latent z ~ N(0, I)", low=1, high=2**20)
    d_norm: tuple[str, ...] = setting(
        ("spectral",),
        "normalization of D, one or more; spectral or weight may stand with batch or layer",
        choices=("none", "spectral", "weight", "batch", "layer"),
    )
    g_sn: bool = setting(False, "spectral normalization in G too")
    loss: str = setting("hinge", "adversarial loss", choices=("bce", "hinge", "wasserstein", "lsgan"))
    regularizer: str = setting(
        "none",
        "what else constrains D",
        choices=("none", "weight_clipping", "gradient_penalty", "r1", "orthonormal"),
    )
    regularizer_weight: float | None = setting(
        None, "its factor; for weight_clipping, the bound (default: the literature's)", above=0
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

    # What is written while it trains, and how often, in steps of G
    log_every: int = setting(100, "losses and gradient norms to stats.jsonl", low=1, resumable=True)
    sample_every: int = setting(1000, "a grid of samples from a fixed z", low=1, resumable=True)
    save_every: int = setting(5000, "a checkpoint", low=1, resumable=True)
    keep: int = setting(3, "checkpoints kept, the newest ones", low=1, resumable=True)
    tensorboard: bool = setting(False, "also write the statistics for TensorBoard", resumable=True)
    eval_every: int = setting(0, "scores during training; 0: only after it", low=0, resumable=True)
    eval_kid: bool = setting(True, "KID among them, which takes longest on small images", resumable=True)
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
        "(auto: classifier for digits, mnist and fashion_mnist)",
        choices=("auto", "inception", "classifier"),
        resumable=True,
    )
    inception_weights: str | None = setting(None, "a local copy of torch-fidelity's Inception weights", resumable=True)

    # Where
    run_dir: str | None = setting(None, "default: runs/DATASET_MODEL_LOSS_NORM_seedK", stored=False)
    config: str | None = setting(None, "YAML file of settings, over the preset", stored=False)
    resume: str | None = setting(None, "go on with the run in this directory", stored=False)


FIELDS = {f.name: f for f in dataclasses.fields(Config)}
TYPES = typing.get_type_hints(Config)


def element_type(name):
    """Returns (scalar type, optional, count): how many values the field takes; 0 for any number, None for a scalar."""
    kind = TYPES[name]
    if isinstance(kind, types.UnionType):
        return typing.get_args(kind)[0], True, None
    if typing.get_origin(kind) is tuple:
        args = typing.get_args(kind)
        return args[0], False, 0 if args[-1] is Ellipsis else len(args)
    return kind, False, None


def short(value):
    """repr() for a message, cut off: a file from elsewhere can hold a value whose repr() has no end."""
    try:
        return reprlib.repr(value)
    except ValueError:  # a whole number of thousands of digits
        return f"a {type(value).__name__} too long to show"


def to_flag(value):
    """A setting's value as one would type it: (0.5, 0.999) -> '0.5 0.999'."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def checked(name, value):
    """Return a value given for the setting `name` with its exact type, or raise ValueError that names the choices."""
    kind, optional, count = element_type(name)
    if value is None and optional:
        return None
    if count is not None:
        values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
        if count and len(values) != count:
            raise ValueError(f"{name} takes {count} values, not {len(values)}")
        if not values:
            raise ValueError(f"{name} takes at least one value")
        return tuple(_checked_scalar(name, item, kind) for item in values)
    return _checked_scalar(name, value, kind)


def _checked_scalar(name, value, kind):
    meta = FIELDS[name].metadata
    if kind is float and type(value) is int:
        value = float(value) if abs(value) < 2**1000 else float("inf")
    if type(value) is not kind:
        hint = ""
        if isinstance(value, str) and kind in (int, float):
            hint = " (YAML reads 2e-4 as text; write 2.0e-4 or 0.0002)" if _is_number(value) else ""
        raise ValueError(f"{name} must be {ARTICLES[kind]}, not {short(value)}{hint}")
    if meta["choices"] and value not in meta["choices"]:
        close = difflib.get_close_matches(str(value)[:100], map(str, meta["choices"]), 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"{name} {short(value)} is not one of {', '.join(map(str, meta['choices']))}{hint}")
    if kind is int and abs(value) > LARGEST:
        raise ValueError(f"{name} must be at most {LARGEST}, not {short(value)}")
    bounds = {
        "at least": (meta["low"], lambda bound: value >= bound),
        "more than": (meta["above"], lambda bound: value > bound),
        "at most": (meta["high"], lambda bound: value <= bound),
        "less than": (meta["below"], lambda bound: value < bound),
    }
    for words, (bound, holds) in bounds.items():
        if bound is not None and not holds(bound):  # NaN holds for none
            raise ValueError(f"{name} must be {words} {bound}, not {short(value)}")
    if kind is float and value in (float("inf"), float("-inf")):
        raise ValueError(f"{name} must be finite")
    return value


ARTICLES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


class _Loader(yaml.SafeLoader):
    """YAML's plain types, without aliases: a few lines of those stand for gigabytes."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it refers to itself by an alias (*name)")
        return super().compose_node(parent, index)


def load_yaml(path):
    """The content of a YAML file of plain values, which may come from anyone. UserError where it cannot be read."""
    try:
        if not Path(path).is_file():
            raise UserError(f"cannot read the configuration {path}: No such file")
        with open(path, encoding="utf-8") as file:
            text = file.read(YAML_LIMIT + 1)
        if len(text) > YAML_LIMIT:
            raise UserError(f"{path} is too long for a configuration")
        return yaml.load(text, _Loader)
    except OSError as error:
        raise UserError(f"cannot read the configuration {path}: {error.strerror}") from error
    except UserError:
        raise
    except Exception as error:  # PyYAML raises ValueError, AttributeError and more for a bad date, int or float
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())[:300]}") from error


def read_yaml(path):
    """Read a YAML file of settings into a dict of checked values. UserError names the file, the key and the choices.

    What a run's config.yaml says under `record` (utils/record.py) is left out.
    """
    content = load_yaml(path)
    if isinstance(content, dict):
        content = {key: value for key, value in content.items() if key != "record"}
    try:
        return check_settings({} if content is None else content)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def check_settings(values):
    """Check a dict of settings from outside, as flags are checked. ValueError for an unknown key or a bad value."""
    if not isinstance(values, dict):
        raise ValueError(f"settings are `name: value` lines, not a {type(values).__name__}")
    names = [name for name in FIELDS if name not in ("config", "resume")]
    for key in values:
        if key in ("config", "resume"):
            raise ValueError(f"{key} is a flag only: a file of settings cannot name another")
        if key not in names:
            close = difflib.get_close_matches(str(key)[:100], names, 1)
            hint = f"did you mean {close[0]}?" if close else f"the settings are {', '.join(names)}"
            raise ValueError(f"unknown setting {short(key)}; {hint}")
    if values.get("num_epochs") is not None and "total_steps" in values:
        raise ValueError("total_steps and num_epochs exclude each other")
    return {key: checked(key, value) for key, value in values.items()}


def resolve(flags):
    """Lay the flags over --config over the preset over the defaults.

    Returns (Config, preset): preset is the path of the file taken, or None. UserError for what cannot be combined.
    """
    experiment = read_yaml(flags["config"]) if "config" in flags else {}
    chosen = {**experiment, **flags}
    name = "{}_{}.yaml".format(*(chosen.get(key, FIELDS[key].default) for key in ("dataset", "model")))
    preset = CONFIGS_DIR / name if (CONFIGS_DIR / name).exists() else None
    settings = {}
    for layer in (read_yaml(preset) if preset else {}, experiment, flags):
        for key, other in (("total_steps", "num_epochs"), ("num_epochs", "total_steps")):
            if layer.get(key) is not None:  # the two say the same thing: the later layer's word counts
                settings.pop(other, None)
        settings.update(layer)
    config = Config(**settings)
    check_combinations(config)
    return config, preset


def check_combinations(config):
    """Raise UserError, with the reason, where two settings make no sense together."""
    from models.normalization import check_d_norm  # here, since it imports torch, which --help does not wait for

    try:
        check_d_norm(config.d_norm)
    except ValueError as error:
        raise UserError(str(error)) from error
    weight_norms = [name for name in config.d_norm if name in ("spectral", "weight")]
    rules = [
        (
            config.regularizer == "weight_clipping" and weight_norms,
            f"weight_clipping makes no sense with d_norm {to_flag(tuple(weight_norms))}: the normalization divides the "
            "clipped weights by their own size, so the bound has no effect. Use --d_norm none, batch or layer",
        ),
        (
            config.regularizer in ("gradient_penalty", "r1") and "batch" in config.d_norm,
            f"{config.regularizer} makes no sense with d_norm batch: the penalty is on D's gradient at each single "
            "image, and batch normalization makes D's output depend on the whole batch. Use --d_norm layer or none",
        ),
        (
            config.compile and config.regularizer in ("gradient_penalty", "r1"),
            f"compile makes no sense with {config.regularizer}: torch.compile cannot differentiate the penalty twice",
        ),
        (
            config.arch_variant != "code" and config.model != "dcgan",
            f"arch_variant {config.arch_variant} is for --model dcgan: paper and code agree on the other models",
        ),
        (
            config.regularizer_weight is not None and config.regularizer == "none",
            "regularizer_weight needs a regularizer",
        ),
    ]
    for broken, reason in rules:
        if broken:
            raise UserError(reason)


def warnings(config):
    """Sentences about settings that can be combined but rarely should be."""
    bounded = {"spectral", "weight"} & set(config.d_norm) or config.regularizer != "none"
    if config.loss == "wasserstein" and not bounded:
        yield "the wasserstein loss has no minimum without a bound on D's slope: expect the run to diverge"
    if {"spectral", "batch"} <= set(config.d_norm):
        yield "batch norm in D multiplies by its own gain: D is not Lipschitz bounded by spectral norm then"


def differences(before, after):
    """What differs between two configurations: {setting: (its value before, its value after)}, where aside."""
    before, after = stored(before), stored(after)
    names = [name for name in FIELDS if before.get(name) != after.get(name)]
    return {name: (before.get(name), after.get(name)) for name in names}


def comparison(configs):
    """Sentences about the settings in which configurations {name: Config} differ, each with everyone's value."""
    for setting in FIELDS:
        values = {name: stored(config).get(setting) for name, config in configs.items()}
        if any(value != next(iter(values.values())) for value in values.values()):
            yield f"{setting}: " + ", ".join(f"{value} ({name})" for name, value in values.items())


def default_run_dir(config):
    """runs/DATASET_MODEL_LOSS_NORM_seedK, with the regularizer beside the norm where there is one."""
    norm = "-".join(config.d_norm)
    if config.regularizer != "none":
        norm += f"-{config.regularizer}"
    return Path("runs") / f"{config.dataset}_{config.model}_{config.loss}_{norm}_seed{config.seed}"


def stored(config):
    """The settings that say what a run is, as a plain dict of YAML's and checkpoints' types."""
    values = {name: getattr(config, name) for name, f in FIELDS.items() if f.metadata["stored"]}
    if config.num_epochs is not None:
        values.pop("total_steps")
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def to_yaml(config):
    """The stored settings as YAML text that read_yaml() takes back to the same values."""
    return yaml.safe_dump(stored(config), sort_keys=False)
