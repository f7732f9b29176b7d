"""The record of a run in its config.yaml: for each start, everything that a result depends on."""

import datetime
import importlib.metadata
import platform
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml

from settings.config import Config, to_yaml
from settings.layers import check_settings, load_yaml
from utils.distributed import world_size
from utils.errors import UserError
from utils.files import write_text

NAME = "config.yaml"
PACKAGES = ("torchvision", "numpy")
ROOT = Path(__file__).resolve().parents[2]


class Record:
    """The entries of a run's earlier starts, and the entry of this start."""

    def __init__(self, run_dir: str | Path, config: Config, device: torch.device, step: int) -> None:
        self.path, self.config, self.earlier = Path(run_dir) / NAME, config, earlier(run_dir)
        kind = device.type
        self.now = {
            "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "command": shlex.join([Path(sys.executable).name, *sys.argv]),
            **{name: value for name in ("size", "config") if (value := getattr(config, name))},
            **git_commit(),
            "host": socket.gethostname(),
            "device": torch.cuda.get_device_name(device) if kind == "cuda" else f"{kind}, {platform.machine()}",
            "processes": world_size(),
            "threads": torch.get_num_threads(),
            "versions": {"python": platform.python_version(), "torch": str(torch.__version__)}
            | {package: importlib.metadata.version(package) for package in PACKAGES},
            "from_step": step,
        }
        self._begin = time.monotonic()

    def save(self, step: int) -> None:
        """Write config.yaml with the step reached and the seconds since this start."""
        entry = self.now | {"to_step": step, "wall_seconds": round(time.monotonic() - self._begin, 3)}
        text = to_yaml(self.config) + yaml.safe_dump({"record": [*self.earlier, entry]}, sort_keys=False, width=1000)
        write_text(self.path, text)

    def changes(self) -> Iterator[str]:
        """Yield sentences about differences from the last start that could change results."""
        before = self.earlier[-1] if self.earlier else {}
        for name in ("commit", "host", "device", "processes", "threads", "versions"):
            if name in before and before[name] != self.now[name]:
                yield f"{name} {_flat(before[name])} -> {_flat(self.now[name])}"


def read(run_dir: str | Path) -> tuple[Config, list[dict[str, Any]]]:
    """The settings in a run's config.yaml, and the entries of its starts. Raises UserError if it cannot be read."""
    path = Path(run_dir) / NAME
    try:
        content = load_yaml(path)
        entries = content.pop("record", [])
        return Config(**check_settings(content)), [entry for entry in entries if isinstance(entry, dict)]
    except (UserError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged: {error}") from error


def earlier(run_dir: str | Path) -> list[dict[str, Any]]:
    """The entries of a run's starts; empty if config.yaml is absent or damaged."""
    try:
        return read(run_dir)[1]
    except UserError:
        return []


def recorded_threads(run_dir: str | Path) -> int | None:
    """The number of threads of a run's last start, or None if not recorded."""
    found = [entry["threads"] for entry in earlier(run_dir) if "threads" in entry]
    return found[-1] if found and isinstance(found[-1], int) and found[-1] > 0 else None


def _flat(value: Any) -> str:
    return ", ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, dict) else str(value)


def git_commit() -> dict[str, str | None]:
    """{"commit": this project's commit, with -dirty if files have changed}, or None and the reason."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return {"commit": done.stdout.strip()}
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().split("\n")[0]
        return {"commit": None, "commit_unknown": said[:300]}
