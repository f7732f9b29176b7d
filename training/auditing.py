"""The audit of a checkpoint's discriminator on real images and samples (evaluate.py --audit)."""

import json
from pathlib import Path
from typing import Any

import torch

from datasets import load_split, to_float, trained_on
from evaluation.discriminator import lipschitz
from evaluation.inputs.sampling import BLOCK, latents
from models.conditional import given
from utils.console import announced
from utils.errors import UserError
from utils.files import write_text

from .checkpoints.checkpoint import KEYS, load
from .checkpoints.run_dir import latest, own_stem, stem_of
from .reporting import page

AUDIT_IMAGES = 512  # real images, and the same number of samples


def audit(
    path: str | Path, ema: bool = True, settings: dict[str, Any] | None = None, device: torch.device | str = "cpu"
) -> Path:
    """Audit D of a checkpoint, or of a run's newest, and write JSON. Raises UserError if it has no D or is broken."""
    saved = load(path, tuple(KEYS))
    D = saved.discriminator().to(device)
    path, G, config, step, ema, classes, _ = saved.generator(ema, settings, device)
    images = trained_on(load_split(config), config.num_images)
    generator = torch.Generator().manual_seed(config.seed)
    places = torch.randperm(len(images.images), generator=generator)[:AUDIT_IMAGES]
    chosen, labels = images.images[places], images.labels[places].to(device) if classes else None
    z = latents(config.seed, 0, len(chosen), config.z_dim).to(device)
    inputs = given(z, labels)  # samples of the same classes as the real images
    with torch.no_grad():
        fake = torch.cat([G(*parts) for parts in zip(*(part.split(BLOCK) for part in inputs))])
    if not fake.isfinite().all():
        raise UserError(f"{path}: the generator draws NaN or infinity: its weights are broken")
    try:
        with announced("measuring D's layers and its slope"):
            found = lipschitz.audit(D, to_float(chosen, generator), fake, labels)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    facts = {"checkpoint": str(path), "step": step, "ema": ema, "seed": config.seed, "model": config.model}
    facts |= {"d_norm": list(config.d_norm), "dataset": config.dataset, "num_images": len(chosen)}
    print(f"{path}:\n{lipschitz.summary(found)}")
    last = path.parent.name == "checkpoints" and path == latest(path.parent.parent) and ema
    stem = stem_of(path, "audit") if last else own_stem(path, ema, what="audit")
    target = stem.with_name(stem.name + ".json")
    write_text(target, json.dumps(facts | found, indent=2, allow_nan=False) + "\n")
    if last:
        page.refresh(path.parent.parent)
    return target
