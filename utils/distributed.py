"""The device of a run."""

import torch

from .errors import UserError


def select_device(name):
    """The torch.device that --device names: auto, cpu, cuda or cuda:N. UserError where it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device takes auto, cpu, cuda or cuda:N, not {name!r}") from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count <= (device.index or 0):
            raise UserError(
                f"--device {name} was asked for, but torch sees {count} CUDA devices here; use --device auto"
            )
    elif device.type != "cpu":
        raise UserError(f"--device takes auto, cpu, cuda or cuda:N, not {name!r}")
    return device
