"""Checkpoints: one file holds a run's whole state and its configuration; and generators for inference.

Files are written beside their place and renamed, and read with weights_only=True: nothing in them is ever executed.
"""

import contextlib
import dataclasses
import os
import re
import warnings
import zipfile
from pathlib import Path

import torch

from models import build_models, remove_spectral_norm

from .config import Config, check_combinations, check_settings, short, stored
from .errors import Damaged, UserError

FORMAT = "sngan-checkpoint-1"
EXPORT_FORMAT = "sngan-generator-1"
CHECKPOINT_KEYS = {"format", "config", "step", "G", "D", "ema", "opt_G", "opt_D", "random", "data", "pending"}
EXPORT_KEYS = {"format", "config", "step", "ema", "G"}


def write_atomically(path, write):
    """Call write(temporary path), then rename to path: the file is there whole or not at all."""
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as a RuntimeError
        temporary.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(f"cannot write {path}: {reason}") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path, text):
    """Write a text file atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _sync_folder(folder):
    """Have the disk know a file's new name, where the system can: a power cut must not leave the old one."""
    with contextlib.suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def save(path, content):
    """Save a dict of tensors and plain values atomically."""
    write_atomically(path, lambda temporary: torch.save(content, temporary))


def load(path, formats=(FORMAT,)):
    """Load and check a file that save() wrote, to the CPU. UserError where it is absent, damaged or something else."""
    path = Path(path)
    try:
        if not path.exists():
            raise UserError(f"there is no checkpoint {path}")
        if not path.is_file():
            raise UserError(f"{path} is not a file")
        with open(path, "rb") as file:
            magic = file.read(2)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        content = load_tensors(path)
    except (OSError, MemoryError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    except Exception as error:  # torch raises a dozen kinds here: a zip cut short, a pickle with code in it, ...
        refused = magic[:1] == b"\x80" or (magic == b"PK" and "weights_only" in str(error).lower())
        what = "holds code or objects, which are never loaded" if refused else "is damaged, or no such file at all"
        raise Damaged(f"{path} is not a checkpoint of this project: it {what}") from error
    keys = {FORMAT: CHECKPOINT_KEYS, EXPORT_FORMAT: EXPORT_KEYS}
    found = content.get("format") if isinstance(content, dict) else None
    if not isinstance(found, str) or found not in formats or not keys[found] <= set(content):
        raise Damaged(f"{path} is not a checkpoint of this project that can be used here (format {short(found)})")
    if type(content["step"]) is not int or not 0 <= content["step"] < 2**53:
        raise UserError(f"{path}: its step is {short(content['step'])}, and not a whole number")
    if found == FORMAT and not isinstance(content["data"], dict):
        raise UserError(f"{path}: its data order is not one")
    return content


def load_tensors(path):
    """torch.load() of a file that may come from anyone, to the CPU: nothing is executed, nothing unpacks to more.

    Any error of torch or zipfile where it is no such file; ValueError for a wrong bit, which torch would load.
    """
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > os.path.getsize(path):
            raise ValueError("compressed, or sizes that are not true: torch.save() writes neither")
        if archive.testzip():
            raise ValueError("a checksum is wrong")
    with warnings.catch_warnings(action="ignore"):  # about pickle protocols, of files that are refused anyway
        content = torch.load(path, map_location="cpu", weights_only=True)
    _check_tensors(content)
    return content


def _check_tensors(content):
    """Raise ValueError for a tensor that is larger than what is stored of it: a few bytes can stand for any number."""
    if isinstance(content, torch.Tensor):
        plain = content.layout is torch.strided and content.device.type == "cpu" and not content.is_quantized
        if not plain or content.numel() * content.element_size() > content.untyped_storage().nbytes():
            raise ValueError("a tensor without its numbers")
    elif isinstance(content, (dict, list, tuple)):
        for part in content.values() if isinstance(content, dict) else content:
            _check_tensors(part)


def config_of(content, path):
    """The Config that a loaded checkpoint holds; a setting that its version did not have yet has its default.

    UserError where it cannot be used, as for a setting that only a newer version knows: it may change what the run is.
    """
    try:
        config = Config(**check_settings(content["config"]))
        check_combinations(config)
    except (ValueError, TypeError, UserError) as error:
        newer = " (or is the file of a newer version?)" if "unknown setting" in str(error) else ""
        raise UserError(f"{path}: its configuration cannot be used: {error}{newer}") from error
    with torch.device("meta"):  # sizes alone, so that a file with mistaken ones does not fill the memory
        G, _ = models_of(config)
    with fitting(path, "generator"):
        found = {name: tuple(value.shape) for name, value in content["G"].items()}
        expected = {name: tuple(value.shape) for name, value in G.state_dict().items()}
        for name in sorted(found.keys() | expected.keys(), key=str):
            if found.get(name) != expected.get(name):
                raise ValueError(f"{name} is {found.get(name)}, and not {expected.get(name)}")
    return config


def missing_settings(content):
    """The settings that a loaded checkpoint does not have, since its version of the project had not."""
    return [name for name in stored(Config()) if name not in content["config"] and name != "total_steps"]


@contextlib.contextmanager
def fitting(path, what):
    """Turn any error within, where a part of a loaded file is taken over, into a UserError that names file and part."""
    try:
        yield
    except Exception as error:  # of torch, for whatever the file holds in that place
        first = " ".join(" ".join(str(error).split("\n")[:2]).split()) or type(error).__name__
        raise UserError(f"{path}: its {what} does not fit its configuration: {first[:300]}") from error


def load_weights(module, weights, path, what):
    """module.load_state_dict(weights), with a UserError where they are another network's."""
    with fitting(path, what):
        module.load_state_dict(weights)


def models_of(config):
    """build_models() with a Config's settings. UserError for a combination that no model has."""
    names = ("image_size", "channels", "z_dim", "base_channels", "d_norm", "g_sn", "arch_variant")
    try:
        return build_models(config.model, **{name: getattr(config, name) for name in names})
    except ValueError as error:
        raise UserError(str(error)) from error


def checkpoint_path(run_dir, step):
    return Path(run_dir) / "checkpoints" / f"step_{step:06d}.pt"


def checkpoints(run_dir):
    """A run's checkpoints as [(step, path)], oldest first."""
    found = []
    for path in (Path(run_dir) / "checkpoints").glob("step_*.pt"):
        if match := re.fullmatch(r"step_(\d+)\.pt", path.name):
            found.append((int(match[1]), path))
    return sorted(found)


def latest(run_dir):
    """The path of a run directory's newest checkpoint. UserError where there is none."""
    found = checkpoints(run_dir)
    if not found:
        raise UserError(f"{run_dir} holds no checkpoint (checkpoints/step_NNNNNN.pt)")
    return found[-1][1]


def by_run(names):
    """Group run directories and files: {what is scored together: its checkpoints, oldest first}."""
    groups = {}
    for name in map(Path, names):
        if name.is_dir():
            latest(name)  # a directory without checkpoints is no run
        for path in [path for _, path in checkpoints(name)] if name.is_dir() else [name]:
            groups.setdefault(path.parent if path.parent.name == "checkpoints" else path, set()).add(path)
    # Names of one length sort by their steps; from step 1,000,000 on they grow longer.
    return {key: sorted(paths, key=lambda path: (len(path.name), path.name)) for key, paths in groups.items()}


def load_newest(run_dir):
    """Load a run directory's newest checkpoint that is whole. Returns (content, path, why newer ones are not)."""
    damaged = []
    latest(run_dir)  # refuses a directory without any
    for _, path in reversed(checkpoints(run_dir)):
        try:
            return load(path), path, damaged
        except Damaged as error:
            damaged.append(error)
    raise UserError(f"{run_dir} holds no checkpoint that can be read: {'; '.join(map(str, damaged))}")


def set_aside(run_dir, step):
    """Rename the checkpoints of later steps, which are damaged, so that they are not taken for newer ones."""
    for later, path in checkpoints(run_dir):
        if later > step:
            path.rename(path.with_name(path.name + ".damaged"))


def thin(run_dir, keep):
    """Delete all but the newest `keep` checkpoints of a run, and what a killed process left half written."""
    for _, path in checkpoints(run_dir)[:-keep]:
        path.unlink(missing_ok=True)
    for path in (Path(run_dir) / "checkpoints").glob("*.tmp"):  # of a process that was killed while it wrote
        path.unlink(missing_ok=True)


def generator_of(content, path, ema=True):
    """Build the generator of a loaded checkpoint or export, in eval mode. Returns (G, config, whether it is an EMA)."""
    config = config_of(content, path)
    if content["format"] == EXPORT_FORMAT:
        weights, ema = content["G"], content["ema"]
    else:
        ema = ema and content["ema"] is not None
        weights = content["ema"] if ema else content["G"]
    G, _ = models_of(config)
    load_weights(G, weights, path, "generator")
    return G.requires_grad_(False).eval(), config, ema


def discriminator_of(content, path):
    """Build the discriminator of a loaded checkpoint, in eval mode. UserError where it does not fit."""
    _, D = models_of(config_of(content, path))
    load_weights(D, content["D"], path, "discriminator")
    return D.eval()


def load_generator(path, ema=True):
    """Load the generator of a checkpoint or of an exported file: G(z) with z (N, z_dim) gives (N, C, H, W) in [-1, 1].

    ema: the moving average of its weights, where the checkpoint has one. UserError for a file that cannot be used.
    """
    return generator_of(load(path, (FORMAT, EXPORT_FORMAT)), path, ema)[0]


def export_generator(path, G, config, step, ema):
    """Save G for inference, spectral normalization folded into its weights: what load_generator() reads."""
    if config.g_sn:
        remove_spectral_norm(G)
        config = dataclasses.replace(config, g_sn=False)
    save(path, {"format": EXPORT_FORMAT, "config": stored(config), "step": step, "ema": ema, "G": G.state_dict()})
