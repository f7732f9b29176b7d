"""What moves over a run, as functions of the real images that D has seen, so that batch sizes do not matter.

The cosines are those of R3GAN (Huang et al. 2024): the rate, the penalty's weight, beta2 and the EMA's half-life.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence

from settings.config import Config
from settings.rules import COSINES

from .state import State

DECAYS = {"none": lambda done: 1.0, "linear": lambda done: 1 - done}  # of the share of the run that is done


def images_seen(config: Config, step: int) -> int:
    """Real images that D was shown in so many steps."""
    return step * config.n_dis * config.batch_size


def cosine(start_end_images: Sequence[float], images: int) -> float:
    """From start to end over the first images, slowly at both ends; the end from there on."""
    start, end, last = start_end_images
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(1.0, images / last)))


def learning_rates(config: Config, images: int) -> tuple[float, float]:
    """Those of G and D for the step after so many images: constant, falling linearly to 0 at the end, or lr_cosine."""
    if config.lr_cosine:
        return (cosine(config.lr_cosine, images),) * 2
    factor = DECAYS[config.lr_decay](images / images_seen(config, config.total_steps))
    return config.lr_G * factor, config.lr_D * factor


def moving(config: Config, images: int) -> dict[str, float]:
    """What else moves, of gamma, beta2 and ema_half_life, for the step after so many images; nothing of what does not.

    Names as in stats.jsonl.
    """
    schedules = {name: getattr(config, f"{name}_cosine") for name in COSINES if name != "lr"}
    return {name: cosine(schedule, images) for name, schedule in schedules.items() if schedule}


def ema_decay(config: Config, step: int) -> float:
    """The moving average's decay at update number `step` of G, counted from 1.

    Without a half-life it warms up as (1 + step) / (10 + step), so that the random initial weights are soon forgotten.
    """
    before = images_seen(config, step - 1)
    half_life = moving(config, before).get("ema_half_life")
    if half_life is None:
        return min(config.ema_decay, (1 + step) / (10 + step))
    return 0.5 ** (images_seen(config, 1) / half_life) if half_life else 0.0


def set_moving(state: State, config: Config) -> None:
    """Set all of it for the coming step."""
    images = images_seen(config, state.step)
    now = moving(config, images)
    for optimizer, lr in zip((state.opt_G, state.opt_D), learning_rates(config, images)):
        for group in optimizer.param_groups:
            group["lr"] = lr
            if "beta2" in now:
                group["betas"] = (config.betas[0], now["beta2"])
    if "gamma" in now:
        weighed = state.objective.regularizers
        regularizers = tuple((found, now["gamma"] if found.on_gradient else old) for found, old in weighed)
        state.objective = dataclasses.replace(state.objective, regularizers=regularizers)


def described(config: Config) -> Iterator[str]:
    """A sentence for each schedule, with the steps that it takes."""
    for name in COSINES:
        if schedule := getattr(config, f"{name}_cosine"):
            start, end, images = schedule
            until = f"the first {images:,.0f} real images, by step {math.ceil(images / images_seen(config, 1)):,}"
            yield f"{name}: {start:,g} to {end:,g} by a cosine over {until}"
