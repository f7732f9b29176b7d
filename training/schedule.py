"""Schedules over a run, in real images seen rather than in steps.

The cosine schedules follow R3GAN (Huang et al. 2024): learning rate, penalty weight, beta2 and the EMA's half-life.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence

from settings.config import Config
from settings.rules import COSINES

from .state import State

DECAYS = {"none": lambda done: 1.0, "linear": lambda done: 1 - done}  # done: the share of the run that is over


def images_seen(config: Config, step: int) -> int:
    """The number of real images that D sees in `step` steps."""
    return step * config.n_dis * config.batch_size


def cosine(start_end_images: Sequence[float], images: int) -> float:
    """A half cosine from start to end over `last` images, constant after that."""
    start, end, last = start_end_images
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(1.0, images / last)))


def learning_rates(config: Config, images: int) -> tuple[float, float]:
    """The learning rates of G and D after `images` images: constant, linear decay to 0, or lr_cosine."""
    if config.lr_cosine:
        return (cosine(config.lr_cosine, images),) * 2
    factor = DECAYS[config.lr_decay](images / images_seen(config, config.total_steps))
    return config.lr_G * factor, config.lr_D * factor


def moving(config: Config, images: int) -> dict[str, float]:
    """Scheduled values of gamma, beta2 and ema_half_life after `images` images.

    The names are those of stats.jsonl.
    """
    schedules = {name: getattr(config, f"{name}_cosine") for name in COSINES if name != "lr"}
    return {name: cosine(schedule, images) for name, schedule in schedules.items() if schedule}


def ema_decay(config: Config, step: int) -> float:
    """The decay of G's moving average at update number `step`, counted from 1.

    Without a half-life it warms up as (1 + step) / (10 + step), so that the random initial weights are soon forgotten.
    """
    before = images_seen(config, step - 1)
    half_life = moving(config, before).get("ema_half_life")
    if half_life is None:
        return min(config.ema_decay, (1 + step) / (10 + step))
    return 0.5 ** (images_seen(config, 1) / half_life) if half_life else 0.0


def set_moving(state: State, config: Config) -> None:
    """Set all scheduled values for the next step."""
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
    """A sentence for each cosine schedule, with the step at which it ends."""
    for name in COSINES:
        if schedule := getattr(config, f"{name}_cosine"):
            start, end, images = schedule
            until = f"the first {images:,.0f} real images, by step {math.ceil(images / images_seen(config, 1)):,}"
            yield f"{name}: {start:,g} to {end:,g} by a cosine over {until}"
