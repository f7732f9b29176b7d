"""Score generators: checkpoints -> samples -> IS, FID, KID, precision and recall -> evaluation.json, a CSV, pictures.

Also scores the images of any other generator, and audits a discriminator: its gradients and their upper bound.
"""

import utils  # noqa: F401, first, because it reports missing packages

# isort: split
import argparse
import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from datasets import Images, check_place, load_split, trained_on
from datasets.image_files import check_npz, load_samples, save_samples
from datasets.scan import is_archive
from evaluation.evaluator import USUAL, Evaluator, Wanted
from evaluation.inputs import features
from evaluation.inputs.sampling import Generated, Given, images_at
from evaluation.protocol import of_run
from evaluation.results import kept, report, table
from settings.command_line import Parser, a_path, add_settings, given_settings
from settings.config import Config, differences
from settings.layers import resolve
from training.auditing import audit
from training.checkpoints.checkpoint import Loaded, load_trained
from training.checkpoints.run_dir import by_run, latest, own_stem, stem_of
from training.reporting import page
from training.reporting.logger import append
from utils.console import progress
from utils.distributed import broadcast, on_rank_zero, processes, rank, rank_zero_first, say_once, select_device
from utils.errors import refuse_if, run_as_script
from utils.files import check_writable
from utils.precision import keep_memory

OVERRIDES = ("data_dir", "cache_dir", "features", "inception_weights", "num_samples", "protocol", "seed", "device")
JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
OF_SAMPLES = ("dataset", "image_size", "channels", "crop", "background", "bad_images")  # known from a checkpoint
OF_DATA = ("data_dir", "cache_dir", "class_order", "features", "inception_weights", *OF_SAMPLES)  # of an Evaluator
TABLE = (
    "compare the last checkpoints of runs in a table, with mean and spread over the seeds of a configuration; scores "
    "that evaluation.json already has for the same protocol, counts, extractor and seed are not computed again"
)


def parse_args(argv: Sequence[str] | None = None) -> tuple[argparse.Namespace, dict[str, Any]]:
    """Return (namespace, settings that were typed). All other settings are the checkpoint's own."""
    usage = "RUN_DIR [--protocol paper] [--features inception] [--table scores.md] ..."
    parser = Parser(__doc__, usage, epilog=report.MEANINGS, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument_group("input").add_argument
    what = "run directories, to score all of their checkpoints, or single checkpoints"
    add("checkpoints", nargs="*", type=a_path, metavar="RUN_DIR_OR_CHECKPOINT", help=what)
    add("--samples", type=a_path, metavar="DIR_OR_NPZ", help="score the images of any generator instead")
    add("--reference", type=a_path, metavar="DIR_OR_ZIP", help="real images to compare with, instead of the data set")
    add("--no_ema", action="store_true", help="score the raw weights of G, not their exponential moving average")
    group = parser.add_argument_group("scoring (default: as in the run's settings)")
    add = group.add_argument
    add_settings(group, OVERRIDES)
    add("--bootstrap", metavar="N", type=int, default=0, help="add bootstrap intervals of FID and KID from N resamples")
    add("--fid_infinity", action="store_true", help="also extrapolate FID to infinitely many samples")
    add = parser.add_argument_group("output").add_argument
    add("--table", type=a_path, metavar="FILE.csv|.md|.tex", help=TABLE)
    add("--save_samples", type=a_path, metavar="FILE.npz", help="save the scored images as uint8, N x H x W x C")
    add("--audit", action="store_true", help="instead, bound and measure D's Lipschitz constant, and write audit.json")
    add_settings(parser.add_argument_group("the data set that --samples are compared with"), OF_SAMPLES)
    namespace = parser.parse_args(argv)
    check_flags(namespace)
    return namespace, given_settings(namespace)


def check_flags(given: argparse.Namespace) -> None:
    """Check combinations of flags. Raises UserError if any makes no sense."""
    what = "name what to score: either run directories or checkpoints, or --samples DIR_OR_NPZ"
    refuse_if(bool(given.checkpoints) == bool(given.samples), what)
    for name in OF_SAMPLES:
        wrong = getattr(given, name) is not None and not given.samples
        refuse_if(wrong, f"--{name} needs --samples: a checkpoint has its own")
    other = given.save_samples or given.audit
    refuse_if(given.samples and (other or given.no_ema), "--samples: leave out --save_samples, --audit and --no_ema")
    several = given.save_samples and len(given.checkpoints) > 1
    refuse_if(several, f"--save_samples {given.save_samples} takes one run or checkpoint, but several were named")
    about_scores = given.save_samples or given.bootstrap or given.fid_infinity or given.reference
    audited = "--audit does not score: leave out --save_samples, --bootstrap, --fid_infinity and --reference"
    refuse_if(given.audit and about_scores, audited)
    refuse_if(given.bootstrap < 0 or given.bootstrap == 1, "--bootstrap needs at least 2 resamples, for example 100")
    absent = given.reference and not (Path(given.reference).is_dir() or is_archive(given.reference))
    refuse_if(absent, f"--reference {given.reference}: no such folder or .zip archive")
    beside = given.table and (given.samples or other)
    refuse_if(beside, "--table only compares the scores of runs: leave out --samples, --save_samples and --audit")
    if given.table:
        table.check(given.table)
    check_npz("save_samples", given.save_samples)


# ---- Scoring -------------------------------------------------------------------------------------------------------


def make_evaluator(config: Config, device: torch.device, reference: str | None = None) -> Evaluator:
    """Make the Evaluator of a configuration's data set, or of the folder `reference` instead."""
    with rank_zero_first():
        missing = features.missing_weights(config)
        needed = not reference or missing or features.extractor_name(config) == "classifier"  # trained on the data set
        train = load_split(config) if needed else None
    if train and features.is_labelled(train):
        config = features.settled(config, train, missing, say_once) or config
    return Evaluator(config, train, device, say=say_once, reference=reference)


def score(
    paths: Sequence[Path],
    evaluator: Evaluator,
    ema: bool = True,
    settings: dict[str, Any] | None = None,
    keep: str | None = None,
    wanted: Wanted = USUAL,
) -> list[Path]:
    """Score checkpoints of one run, oldest first. Print each result, and merge it into the run's files.

    settings: replace the checkpoints' own. keep: an .npz for the scored images of the last one. Returns the paths of
    the files, which only rank 0 writes.
    """
    stem, run_dir = stem_of(paths[-1]), run_of(paths[-1])
    on_rank_zero(check_writable, stem.parent, "the scores")
    for path in paths:
        loaded = load_trained(path, ema, settings, evaluator.device)
        config = loaded.config
        source = Generated(loaded.G, config.z_dim, config.seed, evaluator.device, classes=loaded.classes)
        facts = {"step": loaded.step, "ema": loaded.ema, "seed": config.seed} | of_run(config, loaded.classes)
        found, neighbours = evaluator.evaluate(source, facts, config.protocol, config.num_samples, wanted)
        if rank() == 0:
            found = say_results(path, found, doubts(evaluator, loaded))
            if run_dir:
                append(run_dir, f"scores of {path}:\n  {report.summary(found)}")
            written, results = report.write(stem, found)
    if rank() > 0:
        return []
    if keep:
        save_scored(keep, source, found, paths[-1])
    if sentence := report.best_and_last(results, found[0]):
        print(sentence)
    # A picture without a step in its name belongs to the result at the top of evaluation.json.
    top = kept.identity(kept.headline(results)) in map(kept.identity, found)
    name = (stem if top else own_stem(path, loaded.ema, evaluator.real.folder)).name
    written += report.draw(stem, results, {name: neighbours})
    if run_dir and (shown := page.refresh(run_dir)):
        written.append(shown)
    return written


def run_of(path: Path) -> Path | None:
    """The run directory of a checkpoint; None for an exported file."""
    return path.parent.parent if path.parent.name == "checkpoints" else None


def save_scored(target: str, source: Generated, results: Sequence[kept.Result], path: Path) -> None:
    """Save the images that these results are of as an .npz, and print the checkpoint."""
    names = ("num_samples", "inception_score_samples")
    drawn = max(result["protocol"][name] for result in results for name in names)
    images = progress(images_at(source, range(drawn)), "samples to save", drawn, unit="image")
    save_samples(target, torch.stack(list(images)))
    print(f"{drawn:,} scored images of {path} are in {target}")


def score_images(
    path: str, settings: dict[str, Any], reference: str | None = None, wanted: Wanted = USUAL
) -> list[Path]:
    """Score the images of any other generator against a data set or the folder `reference`. Returns the paths."""
    if reference and "dataset" not in settings:
        settings = settings | {"dataset": "folder", "data_dir": reference}
    config, _ = resolve(settings)
    stem = Path(path).absolute().with_name(f"{Path(path).absolute().name.removesuffix('.npz')}_evaluation")
    images = load_samples(path, config.image_size, config.channels)
    on_rank_zero(check_writable, stem.parent, "the scores")
    if "data_dir" in settings:
        check_place(config)
    evaluator = make_evaluator(config, select_device(config.device), reference)
    facts: dict[str, Any] = {"samples": str(path), "samples_sha256": Images(images, torch.empty(0), ()).sha256()}
    facts |= {"step": None, "ema": None, "seed": None, "quantisation": "none: given as uint8"}
    found, neighbours = evaluator.evaluate(Given(images), facts, config.protocol, config.num_samples, wanted)
    if rank() > 0:
        return []
    lossy = Path(path).is_dir() and any(file.suffix.lower() in JPEG for file in Path(path).rglob("*"))
    doubted = ["the samples are JPEG files, whose compression changes the scores: save them as PNG"] * lossy
    doubted += of_reference(evaluator)
    written, results = report.write(stem, say_results(path, found, doubted))
    return written + report.draw(stem, results, {stem.name: neighbours})


def doubts(evaluator: Evaluator, loaded: Loaded) -> list[str]:
    """Doubts about a checkpoint's scores, as sentences: whether it was trained on other images."""
    real, count = evaluator.real, loaded.config.num_images
    if real.folder or loaded.data_sha256 is None:
        return of_reference(evaluator)
    train = real.images("train")
    same = trained_on(train, None if count and count > len(train.images) else count).is_of(loaded.data_sha256)
    return ["the generator was trained on other images than those that it is compared with"] * (not same)


def of_reference(evaluator: Evaluator) -> list[str]:
    """A sentence about a reference whose pictures were at least halved in size, or []."""
    origin, side = evaluator.real.images("train").origin, evaluator.config.image_size
    if not (evaluator.real.folder and origin) or min(origin.sizes["commonest"]) < 2 * side:
        return []
    size, colour = "x".join(map(str, origin.sizes["commonest"])), "grey" if evaluator.config.channels == 1 else "colour"
    return [f"the pictures of --reference, most often {size}, were reduced to {side}x{side} in {colour}"]


def say_results(path: str | Path, found: Sequence[kept.Result], doubted: Sequence[str] = ()) -> list[kept.Result]:
    """Print results under the path that was scored, and return them with that path.

    doubted: sentences to add to the warnings. Another one is added if there are too few samples.
    """
    for result in found:
        few, dimension = result["protocol"]["num_samples"], result["protocol"].get("features_dimension") or 0
        more = [f"{few:,} samples are fewer than the {dimension:,} dimensions of the features, so FID is unreliable"]
        result["warnings"] = [*result.get("warnings", []), *doubted, *more * (few < dimension)]
    print(f"{path}:\n  {report.summary(found)}", flush=True)
    return [{"checkpoint": str(path), **result} for result in found]


def say_written(paths: Iterable[str | Path]) -> None:
    for path in paths:
        print(f"written to {path}")


# ---- The command line ----------------------------------------------------------------------------------------------


def score_runs(namespace: argparse.Namespace, settings: dict[str, Any], wanted: Wanted) -> None:
    """Score all named checkpoints, run by run, and print how the runs' settings differ."""
    evaluator_of, configs = shared_evaluators(settings, namespace.reference), {}
    for paths in by_run(namespace.checkpoints).values():
        config = configs[str(run_of(paths[0]) or paths[0])] = load_trained(paths[0], settings=settings).config
        say_written(score(paths, evaluator_of(config), not namespace.no_ema, settings, namespace.save_samples, wanted))
    if len(configs) > 1:
        say_once("differences between the runs:")
        for name, values in differences(*configs.values()).items():
            say_once(f"  {name}: " + ", ".join(f"{value} ({run})" for value, run in zip(values, configs)))


def shared_evaluators(settings: dict[str, Any], reference: str | None) -> Callable[[Config], Evaluator]:
    """A function from a configuration to its Evaluator. Runs on the same data share the extractor and features."""
    device = select_device(settings.get("device", "auto"))
    made = functools.cache(lambda config: make_evaluator(config, device, reference))
    return lambda config: made(Config(**{name: getattr(config, name) for name in OF_DATA}))


def tabulate(namespace: argparse.Namespace, settings: dict[str, Any], wanted: Wanted) -> None:
    """Write a table of checkpoints and runs (their last checkpoints). Score those without scores first."""
    named = [latest(path) if Path(path).is_dir() else Path(path) for path in namespace.checkpoints]
    loaded = {path: load_trained(path, not namespace.no_ema) for paths in by_run(named).values() for path in paths}
    table.check_seeds({f"{path}": (one.config, one.step) for path, one in loaded.items()})
    evaluator_of = shared_evaluators(settings, namespace.reference)
    needs = ["fid_interval"] * bool(wanted.bootstrap) + ["fid_infinity"] * wanted.infinity
    scored = []
    for path, one in loaded.items():
        config = dataclasses.replace(one.config, **settings)
        rest = one.step, one.ema, namespace.reference, needs
        if found := broadcast(on_rank_zero(kept.standing, stem_of(path), config, *rest)):
            say_once(f"{path}: its scores are taken from {stem_of(path)}.json")
        else:
            evaluator = evaluator_of(config)
            say_written(score([path], evaluator, not namespace.no_ema, settings, wanted=wanted))
            config = dataclasses.replace(config, features=evaluator.config.features)  # may differ from the setting
            found = on_rank_zero(kept.standing, stem_of(path), config, *rest)
        scored += [table.Scored(str(run_of(path) or path), one.config, result) for result in found or ()]
    if rank() == 0:
        table.write(namespace.table, scored)
        say_written([namespace.table])


def main() -> None:
    namespace, settings = parse_args()
    keep_memory()
    if namespace.audit:
        device = select_device(settings.get("device", "auto"))
        say_written(audit(path, not namespace.no_ema, settings, device) for path in namespace.checkpoints)
        return
    wanted = Wanted(bootstrap=namespace.bootstrap, infinity=namespace.fid_infinity)
    with processes():
        if namespace.samples:
            say_written(score_images(namespace.samples, settings, namespace.reference, wanted))
        (tabulate if namespace.table else score_runs)(namespace, settings, wanted)


if __name__ == "__main__":
    run_as_script(main)
