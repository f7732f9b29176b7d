"""A run that can be stopped: its state and checkpoints, its directory, signals, resumes, logs and what it watches.

The updates and the loop themselves are in train.py.
"""

from .checkpoints.checkpoint import load_generator
from .checkpoints.resume import prepare

__all__ = ["load_generator", "prepare"]
