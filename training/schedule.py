"""What moves over a run, as functions of the real images that D has seen, so that batch sizes do not matter."""

from utils.config import Config

from .state import State

DECAYS = {"none": lambda done: 1.0, "linear": lambda done: 1 - done}  # of the share of the run that is done


def images_seen(config: Config, step: int) -> int:
    """Real images that D was shown in so many steps."""
    return step * config.n_dis * config.batch_size


def learning_rates(config: Config, images: int) -> tuple[float, float]:
    """Those of G and D for the step after so many images: constant, or falling linearly to 0 at the end."""
    factor = DECAYS[config.lr_decay](images / images_seen(config, config.total_steps))
    return config.lr_G * factor, config.lr_D * factor


def set_learning_rates(state: State, config: Config) -> None:
    """Set those of the coming step."""
    rates = learning_rates(config, images_seen(config, state.step))
    for optimizer, lr in zip((state.opt_G, state.opt_D), rates):
        for group in optimizer.param_groups:
            group["lr"] = lr
