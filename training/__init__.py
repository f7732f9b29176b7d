"""Training runs that can be stopped and resumed: state, checkpoints, run directories, logs and monitoring.

The updates and the training loop are in train.py.
"""

from .checkpoints.checkpoint import load_generator
from .checkpoints.resume import prepare

__all__ = ["load_generator", "prepare"]
