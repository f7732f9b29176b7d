"""Whether torchrun or another launcher started this process as one of several: from the environment, without torch."""

import os

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def number(name: str, default: int) -> int:
    """Return the whole number in an environment variable, or the default if there is none."""
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else default


def several() -> bool:
    """Return whether WORLD_SIZE declares several processes."""
    return number("WORLD_SIZE", 1) > 1


def launched() -> bool:
    """Return whether several processes can also meet. Variables left over from another launch are mostly incomplete."""
    return several() and all(os.environ.get(name) for name in VARIABLES)


def own_rank() -> int:
    """Return this process's rank; 0 for a single process."""
    return number("RANK", 0) if launched() else 0
