"""Score generators: checkpoints -> samples -> IS, FID, KID, precision and recall -> evaluation.json, a CSV, pictures.

Also scores the images of any other generator, and audits a discriminator: how steep it is, and what bounds that.
"""

import utils  # noqa: F401, first, since it says which package is missing

# isort: split
import argparse
import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import generate
from datasets import Images, load_split, trained_on
from datasets.image_files import check_npz, load_samples, save_samples
from datasets.scan import is_archive
from evaluation import depends
from evaluation.evaluator import Evaluator
from evaluation.inputs import features
from evaluation.inputs.sampling import Generated, Given, images_at
from evaluation.results import kept, report, table
from settings.command_line import Parser, a_path, add_settings, given_settings
from settings.config import comparison
from settings.layers import resolve
from training.auditing import audit
from training.checkpoints.checkpoint import load_trained
from training.checkpoints.run_dir import by_run, latest, own_stem, stem_of
from training.reporting import page
from training.reporting.logger import append
from utils.console import progress
from utils.distributed import broadcast, on_rank_zero, processes, rank, rank_zero_first, say_once, select_device
from utils.errors import refuse_if, run_as_script
from utils.files import check_target, check_writable
from utils.precision import keep_memory

OVERRIDES = ("data_dir", "cache_dir", "features", "inception_weights", "num_samples", "protocol", "seed", "device")
JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
OF_SAMPLES = ("dataset", "image_size", "channels", "crop", "background", "bad_images")  # a checkpoint knows its own
TABLE = (
    "compare runs in a table: the last checkpoint of each run, with mean and spread over the seeds of a configuration. "
    "Scores that evaluation.json already has for the same protocol, counts, extractor and seed are not computed again"
)


def parse_args(argv: Sequence[str] | None = None) -> tuple[argparse.Namespace, dict[str, Any]]:
    """Returns (namespace, the typed settings). Settings that are not typed are the checkpoint's own."""
    usage, raw = (
        "RUN_DIR [--protocol paper] [--features inception] [--table scores.md] ...",
        argparse.RawDescriptionHelpFormatter,
    )
    parser = Parser(__doc__, usage, epilog=report.MEANINGS, formatter_class=raw)
    add = parser.add_argument_group("what is scored").add_argument
    what = "a run directory, of which all checkpoints are scored, or single checkpoints"
    add("checkpoints", nargs="*", type=a_path, metavar="RUN_DIR_OR_CHECKPOINT", help=what)
    add("--samples", type=a_path, metavar="DIR_OR_NPZ", help="score these images, of any generator, instead")
    add("--reference", type=a_path, metavar="DIR_OR_ZIP", help="real images to compare with, instead of the data set's")
    add("--no_ema", action="store_true", help="score G itself, not the moving average of its weights")
    group = parser.add_argument_group("how it is scored (default: as the run's settings say)")
    add = group.add_argument
    add_settings(group, OVERRIDES)
    add(
        "--bootstrap", metavar="N", type=int, default=0, help="add confidence intervals of FID and KID from N resamples"
    )
    add("--fid_infinity", action="store_true", help="also extrapolate FID to infinitely many samples")
    add = parser.add_argument_group("output").add_argument
    add("--table", type=a_path, metavar="FILE.csv|.md|.tex", help=TABLE)
    add("--save_samples", type=a_path, metavar="FILE.npz", help="save the scored images as uint8, N x H x W x C")
    add("--audit", action="store_true", help="bound and measure the slope of D instead, and write the run's audit.json")
    add_settings(parser.add_argument_group("the data set that --samples are compared with"), OF_SAMPLES)
    add("--export", type=a_path, help=argparse.SUPPRESS)  # these two are handed to generate.py
    add("--interpolate", action="store_true", help=argparse.SUPPRESS)
    namespace = parser.parse_args(argv)
    check_flags(namespace)
    return namespace, given_settings(namespace)


def check_flags(given: argparse.Namespace) -> None:
    """Raise UserError for flags that make no sense together."""
    single = given.save_samples or given.export
    unscored = given.export or given.interpolate or given.audit
    what = "name what is scored: either a run directory or checkpoints, or --samples DIR_OR_NPZ"
    refuse_if(bool(given.checkpoints) == bool(given.samples), what)
    for name in OF_SAMPLES:
        wrong = getattr(given, name) is not None and not given.samples
        refuse_if(wrong, f"--{name} goes with --samples: a checkpoint has its own")
    refuse_if(given.samples and (single or unscored or given.no_ema), "--samples are scored, and nothing else")
    several = single and len(given.checkpoints) > 1
    refuse_if(several, f"{single} holds one generator's output, but more were named")
    kept = "--save_samples keeps scored images, but --export, --interpolate and --audit do not score"
    refuse_if(given.save_samples and unscored, kept)
    about_scores = given.bootstrap or given.fid_infinity or given.reference
    audited = "--bootstrap, --fid_infinity and --reference are about scores, but --audit does not score"
    refuse_if(given.audit and about_scores, audited)
    refuse_if(given.bootstrap < 0 or given.bootstrap == 1, "--bootstrap takes 2 resamples or more, usually 100")
    absent = given.reference and not (Path(given.reference).is_dir() or is_archive(given.reference))
    refuse_if(absent, f"--reference {given.reference} is no folder or .zip archive")
    other = given.samples or single or unscored
    refuse_if(given.table and other, "--table puts the scores of runs beside each other, and does nothing else")
    if given.table:
        table.check(given.table)
    check_npz("save_samples", given.save_samples)
    check_target(given.export)


# ---- Scoring -------------------------------------------------------------------------------------------------------


def make_evaluator(config, device, reference=None):
    """The Evaluator of a configuration's data set, or of the folder `reference` in its place."""
    train = None
    if not reference or features.extractor_name(config) == "classifier":  # the classifier is the data set's in any case
        with rank_zero_first():
            train = load_split(config)
    return Evaluator(config, train, device, say=say_once, reference=reference)


def score(paths, evaluator, ema=True, settings=None, keep=None, bootstrap=0, fid_infinity=False):
    """Score checkpoints of one run, oldest first, print the scores, and merge them after each into what the run has.

    settings: what replaces the checkpoints' own. keep: an .npz for the last one's scored images. Returns the files. On
    ranks other than 0 nothing is written.
    """
    stem = stem_of(paths[-1])
    on_rank_zero(check_writable, stem.parent, "the scores")
    for path in paths:
        loaded = load_trained(path, ema, settings, evaluator.device)
        config = loaded.config
        source = Generated(loaded.G, config.z_dim, config.seed, evaluator.device, classes=loaded.classes)
        facts = {"step": loaded.step, "ema": loaded.ema, "seed": config.seed}
        facts |= depends.of_run(config, loaded.classes)
        found, neighbours = evaluator.evaluate(
            source, facts, config.protocol, config.num_samples, bootstrap=bootstrap, infinity=fid_infinity
        )
        if rank() == 0:
            found = say_results(path, found, doubts(evaluator, loaded))
            if path.parent.name == "checkpoints":
                append(path.parent.parent, f"scores of {path}:\n  {report.summary(found)}")
            written, results = report.write(stem, found)
            counts = [result["protocol"] for result in found]
            drawn = max(max(count["num_samples"], count["inception_score_samples"]) for count in counts)
    if rank() > 0:
        return []
    if keep:
        images = progress(images_at(source, range(drawn)), "samples to keep", drawn, unit="image")
        save_samples(keep, torch.stack(list(images)))
        print(f"{drawn:,} scored images are in {keep}")
    if sentence := report.best_and_last(results, found[0]):
        print(sentence)
    # A picture without a step in its name is of what stands at the top of evaluation.json.
    top = kept.identity(kept.headline(results)) in map(kept.identity, found)
    name = (stem if top else own_stem(path, loaded.ema, evaluator.folder)).name
    written += report.draw(stem, results, {name: neighbours})
    if path.parent.name == "checkpoints" and (shown := page.refresh(path.parent.parent)):
        written.append(shown)
    return written


def score_images(path, settings, bootstrap=0, fid_infinity=False, reference=None):
    """Score the images of any other generator against a data set or the folder `reference`. Returns the files."""
    if reference and "dataset" not in settings:
        settings = settings | {"dataset": "folder", "data_dir": reference}
    config, _ = resolve(settings)
    stem = Path(path).absolute().with_name(f"{Path(path).absolute().name.removesuffix('.npz')}_evaluation")
    images = load_samples(path, config.image_size, config.channels)
    on_rank_zero(check_writable, stem.parent, "the scores")
    evaluator = make_evaluator(config, select_device(config.device), reference)
    source = Given(images)
    facts = {"samples": str(path), "samples_sha256": Images(images, torch.empty(0), ()).sha256()}
    facts |= {"step": None, "ema": None, "seed": None, "quantisation": "none: given as uint8"}
    found, neighbours = evaluator.evaluate(
        source, facts, config.protocol, config.num_samples, bootstrap=bootstrap, infinity=fid_infinity
    )
    if rank() > 0:
        return []
    lossy = Path(path).is_dir() and any(file.suffix.lower() in JPEG for file in Path(path).rglob("*"))
    doubted = ["the samples are JPEG files: what that loses changes the scores, so save them as PNG"] * lossy
    written, results = report.write(stem, say_results(path, found, doubted))
    return written + report.draw(stem, results, {stem.name: neighbours})


def doubts(evaluator, loaded):
    """Sentences about what makes the scores of a checkpoint doubtful: that it was trained on other images."""
    if evaluator.folder or loaded.data_sha256 is None:
        return []
    count, images = loaded.config.num_images, evaluator.images("train")
    if count is None or count > len(images.images):
        known = evaluator.sha256("train")
    else:
        known = trained_on(images, count).sha256()
    if loaded.data_sha256 == known:
        return []
    return ["the generator was trained on other images than those it is scored against"]


def say_results(path, found, doubted=()):
    """Print results under the name of what was scored, and return them with that name.

    doubted: sentences that join the warnings, as does one about too few samples.
    """
    for result in found:
        few, dimension = result["protocol"]["num_samples"], result["protocol"].get("features_dimension") or 0
        more = [f"{few:,} samples are fewer than the {dimension:,} dimensions of the features: FID means little"]
        result["warnings"] = [*result.get("warnings", []), *doubted, *more * (few < dimension)]
    print(f"{path}:\n  {report.summary(found)}", flush=True)
    return [{"checkpoint": str(path), **result} for result in found]


def say_written(paths):
    for path in paths:
        print(f"written to {path}")


# ---- The command line ----------------------------------------------------------------------------------------------


def score_runs(namespace: argparse.Namespace, settings: dict[str, Any], extras: dict[str, Any]) -> None:
    """Score all checkpoints that were named, run by run, and say in what the runs differ."""
    evaluators: dict[Any, Evaluator] = {}
    configs, ema = {}, not namespace.no_ema
    for key, paths in by_run(namespace.checkpoints).items():
        name = str(key.parent if key.name == "checkpoints" else key)
        configs[name] = load_trained(paths[0], settings=settings).config
        evaluator = evaluator_for(configs[name], evaluators, settings, namespace.reference)
        say_written(score(paths, evaluator, ema, settings, namespace.save_samples, **extras))
    if len(configs) > 1:
        say_once("\n  ".join(["what differs between the runs:", *(list(comparison(configs)) or ["no setting"])]))


def evaluator_for(config, evaluators, settings, reference):
    """The Evaluator among `evaluators`, or a new one there: runs on the same data share the extractor and features."""
    names = ("dataset", "data_dir", "cache_dir", "image_size", "channels", "crop", "background", "bad_images")
    names += ("features", "inception_weights")
    same = tuple(getattr(config, name) for name in names)
    if same not in evaluators:
        evaluators[same] = make_evaluator(config, select_device(settings.get("device", "auto")), reference)
    return evaluators[same]


def tabulate(namespace: argparse.Namespace, settings: dict[str, Any], extras: dict[str, Any]) -> None:
    """Put runs, by their last checkpoints, and single checkpoints into a table, scoring what has no scores yet."""
    named = [latest(path) if Path(path).is_dir() else Path(path) for path in namespace.checkpoints]
    loaded = {path: load_trained(path, not namespace.no_ema) for paths in by_run(named).values() for path in paths}
    places = {path: str(path.parent.parent if path.parent.name == "checkpoints" else path) for path in loaded}
    table.check_seeds({f"{path}": (one.config, one.step) for path, one in loaded.items()})
    evaluators: dict[Any, Evaluator] = {}
    needs = ["fid_interval"] * bool(extras["bootstrap"]) + ["fid_infinity"] * extras["fid_infinity"]
    scored = []
    for path, one in loaded.items():
        config = dataclasses.replace(one.config, **settings)
        look = functools.partial(kept.standing, stem_of(path), config, one.step, one.ema, namespace.reference, needs)
        if found := broadcast(on_rank_zero(look)):
            say_once(f"{path}: its scores are taken from {stem_of(path)}.json")
        else:
            evaluator = evaluator_for(config, evaluators, settings, namespace.reference)
            say_written(score([path], evaluator, not namespace.no_ema, settings, **extras))
            found = on_rank_zero(look)
        scored += [table.Scored(places[path], one.config, result) for result in found or ()]
    if rank() == 0:
        table.write(namespace.table, scored)
        say_written([namespace.table])


def hand_on(namespace: argparse.Namespace, settings: dict[str, Any]) -> None:
    """Call generate.py with the flags that were evaluate.py's before there was one."""
    words = ["--interpolate"] * bool(namespace.interpolate) + ["--no_ema"] * bool(namespace.no_ema)
    words += ["--export", namespace.export] if namespace.export else []
    words += [str(word) for name in generate.OVERRIDES if name in settings for word in (f"--{name}", settings[name])]
    for path in namespace.checkpoints:
        generate.main([path, *words])


def main() -> None:
    namespace, settings = parse_args()
    keep_memory()
    if namespace.export or namespace.interpolate or namespace.audit:
        for path in namespace.checkpoints if namespace.audit else []:
            device = select_device(settings.get("device", "auto"))
            say_written([audit(path, not namespace.no_ema, settings, device)])
        if namespace.export or namespace.interpolate:
            hand_on(namespace, settings)
        return
    extras = {"bootstrap": namespace.bootstrap, "fid_infinity": namespace.fid_infinity}
    with processes():
        if namespace.samples:
            say_written(score_images(namespace.samples, settings, **extras, reference=namespace.reference))
        (tabulate if namespace.table else score_runs)(namespace, settings, extras)


if __name__ == "__main__":
    run_as_script(main)
