"""The directory of a run: its files, whether a run can start in it, disk space, and its lock."""

import contextlib
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from settings.config import Config, default_run_dir
from utils import locks
from utils.console import command
from utils.errors import UserError
from utils.files import check_writable, make_folder, numbered, writing_into

# Files that may remain of a run that ended before its first checkpoint.
LEFT = r"((config\.yaml|log\.txt|stats\.jsonl|report\.html)(\.tmp)?|\.lock(\.holder)?|"
LEFT += r"(samples|audits)/(step_0+|real)\.(png|json)|plots/.*|checkpoints/.*\.tmp)"
LOCK = ".lock"  # held by the process that trains in the directory
NEARBY = 3  # runs that a message names
DISK_RESERVE = 100 * 2**20  # bytes in addition to the checkpoints, for pictures and logs


# ---- Files ---------------------------------------------------------------------------------------------------------


def checkpoint_path(run_dir: str | Path, step: int) -> Path:
    return Path(run_dir) / "checkpoints" / f"step_{step:06d}.pt"


def checkpoints(run_dir: str | Path) -> list[tuple[int, Path]]:
    """A run's checkpoints as [(step, path)], oldest first."""
    paths = (Path(run_dir) / "checkpoints").glob("step_*.pt")
    return sorted((int(path.stem[5:]), path) for path in paths if path.stem[5:].isdecimal())


def latest(run_dir: str | Path) -> Path:
    """The path of a run's newest checkpoint. Raises UserError, which names runs nearby, if there is no checkpoint."""
    found = checkpoints(run_dir)
    there = "is a part of a run" if [*Path(run_dir).glob("step_*.pt")] else "holds no checkpoint"
    what = f"{run_dir} {there}" if Path(run_dir).is_dir() else f"there is no run {run_dir}"
    if not found:
        raise UserError(f"{what}. {nearby(run_dir)}")
    return found[-1][1]


def nearby(path: str | Path) -> str:
    """A hint for a path that holds no run: the file probably meant, or the newest runs nearby."""
    path = Path(path)
    for file in (Path(f"{path}{ending}") for ending in (".pt", ".safetensors")):
        if file.is_file():
            return f"Did you mean {file}?"
    own = [folder.parent.parent for folder in (path, path.parent) if folder.name == "checkpoints"]
    saved = [file for folder in (path, path.parent, *own, Path("runs")) for file in folder.glob("*/checkpoints/*.pt")]
    saved.sort(key=lambda file: (path.is_relative_to(file.parent.parent), file.stat().st_mtime), reverse=True)
    runs = list({file.parent.parent.resolve(): str(file.parent.parent) for file in saved}.values())
    shown = ", ".join(runs[:NEARBY]) + f" and {len(runs) - NEARBY} more" * (len(runs) > NEARBY)
    return f"Runs, newest first: {shown}" if runs else "There are no runs yet: python main.py makes one"


def by_run(names: Iterable[str | Path]) -> dict[Path, list[Path]]:
    """Group run directories and files into {run or file: its checkpoints, oldest first}, to be scored together."""
    groups: dict[Path, set[Path]] = {}
    for name in map(Path, names):
        if name.is_dir():
            latest(name)  # raises if the directory has no checkpoints
        for path in [path for _, path in checkpoints(name)] if name.is_dir() else [name]:
            groups.setdefault(path.parent if path.parent.name == "checkpoints" else path, set()).add(path)
    # Names sort by step only if they have the same length; from step 1,000,000 on they are longer.
    return {key: sorted(paths, key=lambda path: (len(path.name), path.name)) for key, paths in groups.items()}


def set_aside(run_dir: str | Path, step: int) -> None:
    """Rename damaged checkpoints of later steps, so that they no longer count."""
    for later, path in checkpoints(run_dir):
        if later > step:
            path.rename(path.with_name(path.name + ".damaged"))


def thin(run_dir: str | Path, keep: int) -> None:
    """Delete all but a run's newest `keep` checkpoints, and temporary files of killed processes."""
    for _, path in checkpoints(run_dir)[:-keep]:
        path.unlink(missing_ok=True)
    for path in (Path(run_dir) / "checkpoints").glob("*.tmp"):
        path.unlink(missing_ok=True)


def stem_of(path: Path, what: str = "evaluation") -> Path:
    """The path, without a suffix, for scores (or `what` else) of a checkpoint's run: in the run's folder.

    For an exported file, it is next to the file and starts with its name.
    """
    folder = path.parent
    return folder.parent / what if folder.name == "checkpoints" else folder / f"{path.stem}_{what}"


def own_stem(path: Path, ema: bool = True, reference: str | None = None, what: str = "evaluation") -> Path:
    """The path, without a suffix, for results of this one checkpoint, by EMA and reference."""
    step = f"_{path.stem}" if path.parent.name == "checkpoints" else ""
    stem = stem_of(path, what)
    return stem.with_name(stem.name + step + ("" if ema else "_no_ema") + ("_reference" if reference else ""))


# ---- Whether a run can be there -------------------------------------------------------------------------------------


def refuse_existing(run_dir: str | Path) -> None:
    """Raise UserError if a new run would overwrite another run's files."""
    path = Path(run_dir)
    if not is_free(path):
        resume = f"Continue it with {command('--resume', run_dir)}, or choose" if checkpoints(run_dir) else "Choose"
        raise UserError(
            f"{run_dir} exists, and a run never overwrites another. {resume} another --run_dir or --seed, or delete it"
        )
    check_writable(existing_parent(path), run_dir)


def is_free(path: Path) -> bool:
    """Whether a path is free, or holds only a run that ended before its first checkpoint."""
    if not path.is_dir():
        return not path.exists()
    files = [file.relative_to(path).as_posix() for file in path.rglob("*") if not file.is_dir()]
    if not files or ("stats.jsonl" in files and (path / "stats.jsonl").stat().st_size):
        return not any(path.iterdir())
    return "log.txt" in files and all(re.fullmatch(LEFT, name) for name in files)


def free_run_dir(config: Config) -> Path:
    """A run's default directory or, if taken, the next free name, such as ..._seed0-2."""
    return next(path for path in numbered(default_run_dir(config)) if is_free(path))


def existing_parent(path: Path) -> Path:
    """The path itself if it exists, otherwise its nearest parent that does."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


def check_disk(run_dir: Path, checkpoint_bytes: int) -> None:
    """Raise UserError if a run's checkpoints and pictures do not fit on the disk.

    checkpoint_bytes: the size of all checkpoints that will be kept, including those that exist already.
    """
    there = sum(path.stat().st_size for _, path in checkpoints(run_dir))
    needed = max(0, checkpoint_bytes - there) + (DISK_RESERVE // 10 if there else DISK_RESERVE)
    free = shutil.disk_usage(existing_parent(run_dir)).free
    if needed > free:
        raise UserError(
            f"{run_dir} may need {needed / 2**20:,.0f} MiB more for its checkpoints and pictures, but only "
            f"{free / 2**20:,.0f} MiB are free there; choose another --run_dir or a smaller --keep"
        )


def make_folders(run_dir: Path) -> None:
    """Make a run's directory, if it does not exist. Raises UserError if it cannot be made or written to."""
    for name in ("samples", "checkpoints", "plots"):
        make_folder(run_dir / name)
    check_writable(run_dir, run_dir)


@contextlib.contextmanager
def locked(run_dir: str | Path) -> Iterator[None]:
    """Lock an existing run directory against other processes. Raises UserError if another one holds the lock."""

    def refuse(holder: str) -> None:
        raise UserError(f"{run_dir} is being trained by {holder or 'another process'}")

    with contextlib.ExitStack() as stack:
        with writing_into(run_dir):
            stack.enter_context(locks.locked(Path(run_dir) / LOCK, refuse))
        yield


def is_trained(run_dir: str | Path) -> bool:
    """Whether a process trains in a run directory, or the last one there was killed."""
    return bool(locks.holder(Path(run_dir) / LOCK))
