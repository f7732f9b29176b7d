"""Which settings cannot be combined, and which rarely should be."""

from collections.abc import Iterator

from utils.errors import UserError, refuse_if

from .config import DOUBLE, FIELDS, PENALTIES, STACKED, Config, to_flag

# Only one of each group can be chosen: they penalise D's gradient at the same images
SAME = {"real images": ("r1", "r1_r2", "approximate_r1"), "samples": ("r2", "r1_r2", "approximate_r2")}
# Each NAME of --NAME_cosine: the bound that its values must be below, if any
COSINES: dict[str, float | None] = {"lr": None, "gamma": None, "beta2": 1.0, "ema_half_life": None}


def check_networks(config: Config) -> None:
    """Raise UserError if a setting does not fit the chosen networks."""
    from models import Shape, check  # here, since it imports torch, which --help does not wait for

    try:
        check(config.model, Shape(**{name: getattr(config, name) for name in Shape._fields if name in FIELDS}))
    except ValueError as error:
        raise UserError(str(error)) from error


def check_combinations(config: Config) -> None:
    """Raise UserError, with the reason, if two settings make no sense together."""
    check_networks(config)
    weight_norms = [name for name in config.d_norm if name in ("spectral", "weight")]
    penalised = [name for name in config.regularizer if name in PENALTIES]
    twice = [name for name in penalised if name in DOUBLE]
    check_regularizers(config)
    refuse_if(
        "weight_clipping" in config.regularizer and weight_norms,
        f"weight_clipping makes no sense with d_norm {to_flag(tuple(weight_norms))}: the normalization divides the "
        "clipped weights by their own size, so the bound has no effect. Use --d_norm none, batch or layer",
    )
    refuse_if(
        penalised and "batch" in config.d_norm,
        f"{to_flag(tuple(penalised))} makes no sense with d_norm batch: the penalty is on D's gradient at each single "
        "image, and batch normalization makes D's output depend on the whole batch. Use --d_norm layer or none",
    )
    refuse_if(
        config.compile and twice,
        f"compile makes no sense with {to_flag(tuple(twice))}: torch.compile cannot differentiate the penalty twice. "
        "Use approximate_r1 or approximate_r2, which need no second derivative",
    )
    refuse_if(
        config.conditional != "none" and config.dataset == "stl10",
        f"conditional {config.conditional} needs the class of every training image, and STL-10 trains on its "
        "unlabelled images, as the paper does",
    )
    refuse_if(
        config.dataset in STACKED and config.channels == 1,
        f"channels 1 makes no sense with dataset {config.dataset}: its three digits are red, green and blue, and in "
        "grey they overlap. Leave out --channels",
    )
    weighed = changed(config, "acgan_weight_D", "acgan_weight_G")
    refuse_if(weighed and config.conditional != "acgan", f"{' and '.join(weighed)}: for --conditional acgan only")
    refuse_if(
        config.loss == "relativistic" and config.batch_size_G not in (None, config.batch_size),
        f"batch_size_G {config.batch_size_G} makes no sense with loss relativistic, which pairs G's samples with "
        f"{config.batch_size} real images. Give --batch_size_G {config.batch_size}",
    )
    check_augmentation(config)
    check_schedules(config)


def changed(config: Config, *names: str) -> list[str]:
    """Return those of the settings that are not at their default."""
    return [name for name in names if getattr(config, name) != FIELDS[name].default]


def check_names(setting: str, names: tuple[str, ...]) -> None:
    """Raise UserError if "none" is combined with other names, or a name is repeated."""
    refuse_if("none" in names and len(names) > 1, f"{setting} {to_flag(names)}: none cannot be combined with others")
    refuse_if(len(set(names)) < len(names), f"{setting} {to_flag(names)}: give each name once")


def check_regularizers(config: Config) -> None:
    """Raise UserError if regularizers exclude each other, or a setting fits none of them."""
    names, weights = to_flag(config.regularizer), config.regularizer_weight
    check_names("regularizer", config.regularizer)
    for place, group in SAME.items():
        both = [name for name in config.regularizer if name in group]
        told = f"regularizer {names}: {' and '.join(both)} both penalise D's gradient at {place}"
        refuse_if(len(both) > 1, f"{told}. Keep one of them; for a stronger penalty, raise its weight")
    refuse_if(weights is not None and config.regularizer == ("none",), "regularizer_weight needs a regularizer")
    refuse_if(
        weights is not None and len(weights) != len(config.regularizer),
        f"regularizer_weight {to_flag(weights)}: give one for each of {names}, or leave it out",
    )
    for name in changed(config, "gamma_cosine", "regularizer_every"):
        alone = f"{name} needs a penalty on D's gradient: add --regularizer r1, for example"
        refuse_if(not set(config.regularizer) & set(PENALTIES), alone)
    late = changed(config, "lecam_start") and "lecam" not in config.regularizer
    refuse_if(late, "lecam_start is for --regularizer lecam")


def check_augmentation(config: Config) -> None:
    """Raise UserError if the settings of the augmentation contradict each other."""
    check_names("augment", config.augment)
    unused = config.augment == ("none",) and changed(config, "augment_p")
    refuse_if(unused, "augment_p needs an augmentation: --augment color translation cutout, or one of them")


def check_schedules(config: Config) -> None:
    """Raise UserError if a schedule is impossible, or two settings give the same value."""
    for name, below in COSINES.items():
        if (schedule := getattr(config, f"{name}_cosine")) is None:
            continue
        *ends, images = schedule
        told = f"{name}_cosine {to_flag(schedule)}"
        refuse_if(images < 1, f"{told}: it ends before it starts; the third number is its length in real images")
        refuse_if(below and max(ends) >= below, f"{told}: {name} must be less than {below}")
        refuse_if(name in ("lr", "gamma") and min(ends) == 0, f"{told}: {name} must be more than 0 throughout")
        both = changed(config, *FIELDS[f"{name}_cosine"].metadata["replaces"])
        refuse_if(both, f"{name}_cosine replaces {' and '.join(both)}: give only one of them")
    refuse_if(config.beta2_cosine and config.optimizer != "adam", "beta2_cosine is for --optimizer adam")


def warnings(config: Config, device: str) -> Iterator[str]:
    """Yield sentences about settings that can be combined but rarely should be, and about this kind of device."""
    ignored = [f"--{name}" for name in ("tf32", "compile") if getattr(config, name)]
    ignored += ["--amp fp16"] * (config.amp == "fp16")
    if ignored and device != "cuda":
        yield f"no effect on {device.replace('cpu', 'a CPU')}: {' and '.join(ignored)} (for CUDA only)"
    if device not in ("cpu", "cuda"):
        yield f"this project was never tested on {device}: compare a short run with one under --device cpu first"
    bounded = {"spectral", "weight"} & set(config.d_norm) or set(config.regularizer) - {"none", "lecam"}
    if "lecam" in config.regularizer and config.total_steps <= config.lecam_start:
        yield f"lecam starts at step {config.lecam_start:,}, after the end of this run: lower --lecam_start"
    if config.eval_own and not (config.eval_every and config.ema_decay):
        yield "eval_own has no effect: it scores G in addition to its EMA, so it needs --eval_every and --ema_decay"
    if config.loss == "wasserstein" and not bounded:
        yield "the wasserstein loss has no minimum without a bound on D's slope: expect the run to diverge"
    if {"spectral", "batch"} <= set(config.d_norm):
        yield "batch norm in D multiplies by its own gain, so spectral norm does not bound D's Lipschitz constant"
