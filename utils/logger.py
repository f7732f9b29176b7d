"""What a run says: log.txt and the terminal for people, stats.jsonl (and TensorBoard) for programs."""

import json
import math
import sys
from pathlib import Path

from tqdm import tqdm

from .errors import UserError

LOG_FILE_INTERVAL = 30  # seconds between a progress bar's updates where nobody watches it move
PATIENCE = 5  # seconds before a bar is shown at all


def progress(iterable=None, label=None, total=None, delay=PATIENCE, **options):
    """A tqdm bar that moves on a terminal and leaves a line now and then in a log file."""
    interval = 0.1 if sys.stderr.isatty() else LOG_FILE_INTERVAL
    return tqdm(iterable, label, total, mininterval=interval, delay=delay, dynamic_ncols=True, **options)


def read_stats(run_dir):
    """The lines of a run's stats.jsonl as dicts, in order. A last line that was cut off is left out."""
    lines = []
    path = Path(run_dir) / "stats.jsonl"
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


class Logger:
    """Writes into a run directory. On a resume from `step`, lines of later steps are dropped first."""

    def __init__(self, run_dir, tensorboard=False, step=0):
        self.run_dir = Path(run_dir)
        kept = [json.dumps(line) + "\n" for line in read_stats(run_dir) if line["step"] <= step]
        (self.run_dir / "stats.jsonl").write_text("".join(kept), encoding="utf-8")
        self._stats = open(self.run_dir / "stats.jsonl", "a", encoding="utf-8", buffering=1)  # noqa: SIM115
        self._text = open(self.run_dir / "log.txt", "a", encoding="utf-8", buffering=1)  # noqa: SIM115
        self._writer = _summary_writer(self.run_dir, step) if tensorboard else None

    def say(self, text):
        """Print a line, above a progress bar where there is one, and keep it in log.txt."""
        tqdm.write(text)
        self._text.write(text + "\n")

    def write(self, step, values):
        """Append {"step": step, **values}, numbers and text, to stats.jsonl; NaN and infinity become null."""
        values = {k: v if isinstance(v, str) or math.isfinite(v) else None for k, v in values.items()}
        self._stats.write(json.dumps({"step": step, **values}) + "\n")
        if self._writer:
            for name, value in values.items():
                if isinstance(value, str):
                    self._writer.add_text(name, value, step)
                elif value is not None:
                    self._writer.add_scalar(name, value, step)

    def close(self):
        self._stats.close()
        self._text.close()
        if self._writer:
            self._writer.close()


def check_tensorboard():
    """Raise UserError where --tensorboard has nothing to write with."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise UserError("--tensorboard needs the tensorboard package: pip install tensorboard") from error


def _summary_writer(run_dir, step):
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(run_dir / "tensorboard", purge_step=step + 1)
