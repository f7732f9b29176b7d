"""Whether torchrun, or another launcher, started this process beside others: from the environment, without torch."""

import os

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def number(name: str, default: int) -> int:
    """The whole number in an environment variable, or the default where there is none."""
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else default


def several() -> bool:
    """Whether the environment speaks of several processes."""
    return number("WORLD_SIZE", 1) > 1


def launched() -> bool:
    """Whether it also has all that they need to meet; what is left over from another launch mostly has not."""
    return several() and all(os.environ.get(name) for name in VARIABLES)


def own_rank() -> int:
    """This process's rank among them; 0 where it is alone."""
    return number("RANK", 0) if launched() else 0
