"""Scores of a generator: Inception Score, FID, KID, precision and recall, by torch-fidelity's functions on features.

Sampling, quantisation and the protocol are ours; every formula is torch-fidelity's. One pass over the samples.
"""

import importlib.metadata
import platform

import numpy as np
import torch

from .data import quantise
from .errors import UserError

CHUNK = 100  # samples drawn and scored at once: fixed, so that sample i does not depend on how many are drawn
IS_SPLITS = 10
KID_SUBSETS, KID_SUBSET_SIZE = 100, 1000
NEIGHBOURS = 3  # of precision and recall


@torch.inference_mode()
def draw_samples(G, z_dim, num_samples, seed, device):
    """Draw images from G in eval mode, quantised: (num_samples, C, H, W) uint8 on the CPU.

    Sample i is a function of G, the seed and i alone: each chunk of 100 has a seed of its own and is drawn whole.
    """
    G.eval()
    chunks = []
    for chunk in range(-(-num_samples // CHUNK)):
        entropy = np.random.SeedSequence([seed, chunk]).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(entropy >> np.uint64(1)))
        z = torch.randn(CHUNK, z_dim, generator=generator).to(device)
        chunks.append(quantise(G(z)).cpu())
    return torch.cat(chunks)[:num_samples]


@torch.inference_mode()
def extract(extractor, images, device):
    """Features (N, d) and logits (N, k) of uint8 images (N, C, H, W), float32 on the CPU."""
    pairs = [extractor(chunk.to(device)) for chunk in images.split(CHUNK)]
    return tuple(torch.cat([part.float().cpu() for part in parts]) for parts in zip(*pairs))


def scores(features, logits, real_features, precision_recall=True):
    """IS, FID, KID, precision and recall of samples by torch-fidelity. A dict with evaluation.json's names.

    features (N, d), logits (N, k) of the samples; real_features (M, d). IS is the mean and std over 10 splits; KID over
    100 subsets of 1,000, or of as many images as there are. precision_recall: its cost grows with the square of the
    number of images (two minutes for 60,000 on two cores), so scores during training leave it out.
    """
    from torch_fidelity import metric_fid, metric_isc, metric_kid, metric_prc

    inception_score = metric_isc.isc_features_to_metric(logits, splits=IS_SPLITS)
    statistics = [metric_fid.fid_features_to_statistics(f) for f in (features, real_features)]
    subset_size = min(KID_SUBSET_SIZE, len(features), len(real_features))
    kid = metric_kid.kid_features_to_metric(
        features, real_features, kid_subsets=KID_SUBSETS, kid_subset_size=subset_size, verbose=False
    )
    result = {
        "inception_score": {
            "mean": inception_score[metric_isc.KEY_METRIC_ISC_MEAN],
            "std": inception_score[metric_isc.KEY_METRIC_ISC_STD],
        },
        "fid": metric_fid.fid_statistics_to_metric(*statistics, verbose=False)[metric_fid.KEY_METRIC_FID],
        "kid": {"mean": kid[metric_kid.KEY_METRIC_KID_MEAN], "std": kid[metric_kid.KEY_METRIC_KID_STD]},
    }
    if precision_recall:
        prc = metric_prc.prc_features_to_metric(
            features, real_features, prc_neighborhood=NEIGHBOURS, save_cpu_ram=True, verbose=False
        )
        result["precision"] = prc[metric_prc.KEY_METRIC_PRECISION]
        result["recall"] = prc[metric_prc.KEY_METRIC_RECALL]
    return result


class Evaluator:
    """Scores generators of one data set: the extractor and the real images' features, made once.

    images is the training split; of config only what concerns data and extractor is read. Making it is also the check
    that an evaluation is possible: it raises UserError where weights or data are missing.
    """

    def __init__(self, config, images, device, say=print):
        from .features import load_extractor

        self.config, self.device, self.classes = config, device, images.classes
        self.extractor = load_extractor(config, images, device, say)
        if len(images.images) < 2:
            raise UserError("scores need two real images or more")
        self.data_sha256 = images.sha256()
        self.real_features, _ = extract(self.extractor, images.images, device)

    def evaluate(self, G, config, step, ema, precision_recall=True):
        """Score G with its own run's config: z_dim, num_samples, seed.

        Returns (result, images): what evaluation.json holds, and the scored samples (N, C, H, W) uint8.
        """
        images = draw_samples(G, config.z_dim, config.num_samples, config.seed, self.device)
        features, logits = extract(self.extractor, images, self.device)
        if not (features.isfinite().all() and logits.isfinite().all()):
            raise UserError("the samples' features are not finite: the generator's weights are broken")
        result = scores(features, logits, self.real_features, precision_recall)
        if self.extractor.name == "classifier":
            counts = torch.bincount(logits.argmax(1), minlength=len(self.classes))
            result["class_share"] = dict(zip(self.classes, (counts / len(logits)).tolist()))
        result["protocol"] = self.protocol(config, step, ema)
        return result, images

    def protocol(self, config, step, ema):
        """Everything that a score depends on."""
        packages = ("torch", "torchvision", "torch-fidelity", "numpy")
        return {
            "dataset": config.dataset,
            "split": "train",
            "data_sha256": self.data_sha256,
            "num_real": len(self.real_features),
            "num_samples": config.num_samples,
            "step": step,
            "ema": ema,
            "seed": config.seed,
            "features": self.extractor.name,
            "features_sha256": self.extractor.sha256,
            "image_size": config.image_size,
            "resize": self.extractor.resize,
            "quantisation": "uint8, round((x + 1) * 127.5)",
            "inception_score_splits": IS_SPLITS,
            "kid_subsets": KID_SUBSETS,
            "kid_subset_size": min(KID_SUBSET_SIZE, config.num_samples, len(self.real_features)),
            "precision_recall_neighbours": NEIGHBOURS,
            "versions": {"python": platform.python_version()}
            | {package: importlib.metadata.version(package) for package in packages},
        }


def summary(result):
    """One line for a person: the scores and what they were measured with."""
    score, protocol = result["inception_score"], result["protocol"]
    line = f"IS {score['mean']:.2f} +- {score['std']:.2f}, FID {result['fid']:.2f}, KID {result['kid']['mean']:.4f}"
    if "precision" in result:
        line += f", precision {result['precision']:.2f}, recall {result['recall']:.2f}"
    line += (
        f"\n  ({protocol['num_samples']:,} samples of {'the EMA of G' if protocol['ema'] else 'G'} at step "
        f"{protocol['step']:,} against {protocol['num_real']:,} {protocol['split']} images, "
        f"features of the {protocol['features']})"
    )
    if "class_share" in result:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in result["class_share"].items())
        line += f"\n  classes: {shares}"
    return line
