"""Results of a study that was never run, whose story is known."""

from settings.config import Config
from study.grid import Run, Study
from study.results import Result, summed
from study.runs import Outcome

PROTOCOL = {"name": "modern", "num_samples": 5, "num_real": 6, "split": "train", "dataset": "digits"}
PROTOCOL |= {"features": "classifier", "features_sha256": "0123456789"}
METHODS = ("none", "spectral", "spectral_batch", "wgan_gp")


def make_study(tmp_path, methods=METHODS, settings=("A", "C"), seeds=(0, 1, 2), metrics=("inception_score", "fid")):
    return Study("made_up", tmp_path, {}, methods, settings, seeds, metrics)


def make_audit(sigma, bound, gradient):
    layer = {"name": "layers.0", "kind": "Linear", "weight": [2, 3], "singular_values": [sigma, sigma / 2]}
    layer |= {"sigma_power_iteration": sigma, "sigma_svd": sigma, "operator_norm": sigma}
    head = layer | {"name": "head", "weight": [1, 2], "singular_values": [sigma]}
    return summed({"layers": [layer, head], "upper_bound": bound, "lower_bound": gradient})


def make_results(study, fid, sigma=None, seconds=None):
    """Results whose last FID is fid(method, setting) * (1 + seed / 100), after a best one of half of that."""
    results = []
    for run in [(m, s, k) for k in study.seeds for s in study.settings for m in study.methods]:
        method, setting, seed = run
        last = fid(method, setting) * (1 + seed / 100)
        common = {"real_logits": 2.0, "fake_logits": -1.0, "accuracy_D": 0.75, "grad_norm_G": 0.5}
        common |= {"grad_norm_input": (sigma or {}).get(method, 1.0)}
        common |= {"seconds_per_step": (seconds or {}).get(method, 0.01)}
        stats = [{"step": step, **common} for step in (1, 2, 3)]
        scores = {1: 2 * last, 2: last / 2, 3: last}
        stats += [
            {"step": step, "fid": value, "inception_score": 100 / value, "kid": value, "protocol": "modern"}
            for step, value in scores.items()
        ]
        size = (sigma or {}).get(method, 1.0)
        audits = {0: make_audit(1.0, 1.0, 0.5), 3: make_audit(size, size**2, size / 2)}
        config = Config(n_dis=5 if setting == "A" else 1, run_dir=str(study.folder / method), total_steps=3)
        record = ({"device": "cpu, made up", "threads": 1},)
        evaluation = {"fid": last, "inception_score": {"mean": 100 / last, "std": 0.5}, "protocol": PROTOCOL}
        evaluation |= {"kid": {"mean": last, "std": 0.1}}
        outcome = Outcome("finished", 3, "", evaluation, record)
        results.append(Result(Run(method, setting, seed, {}, config), outcome, stats, audits))
    return results
