"""Does spectral normalization help? Many runs, one report: methods x the paper's settings A to F x seeds.

Finished runs are skipped, and interrupted runs continue. The report is made from the run directories.
"""

import utils  # noqa: F401, first, since it reports missing packages

# isort: split
import argparse
import contextlib
import itertools
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from settings.command_line import Parser, a_path, add_settings, given_settings, number_range
from study.grid import GRID, Run, Study, claim, load_study, seeds_of
from utils.errors import refuse_if, run_as_script
from utils.files import make_folder

CONFIG = "configs/studies/digits.yaml"
OVERRIDES = (
    *("audit_every", "base_channels", "conditional", "data_dir", "dataset", "device", "eval_every", "features"),
    *("image_size", "inception_weights", "num_samples", "protocol", "sample_every", "total_steps"),
)


def parse_args(argv: Sequence[str] | None = None) -> tuple[argparse.Namespace, dict[str, Any]]:
    """Parse the command line into a namespace and {name: value} of settings that override the study's own."""
    parser = Parser(__doc__, "[--config configs/studies/digits.yaml] [--quick] [--jobs 2] [--report] ...")
    add = parser.add_argument_group("the study").add_argument
    add("--config", type=a_path, metavar="FILE", default=CONFIG, help=f"YAML file of the study (default: {CONFIG})")
    add("--out", type=a_path, metavar="DIR", help="folder of the study (default: runs/studies/NAME)")
    add("--jobs", type=int, metavar="N", default=1, help="number of parallel runs, which share the cores (default: 1)")
    add = parser.add_argument_group("a part of the study").add_argument
    add("--quick", action="store_true", help="only a small part of the grid; its runs count towards the whole study")
    for key, choices in GRID.items():
        only, metavar = f"only these {key}, out of {', '.join(choices)}", key.removesuffix("s").upper()
        add(f"--{key}", nargs="+", metavar=metavar, help=only)
    add("--seeds", nargs="+", type=number_range, metavar="SEED", help="only these seeds and ranges such as 0-2")
    group = parser.add_argument_group("instead of all runs and the report")
    what = group.add_mutually_exclusive_group()
    alone = "write the report from the existing runs; start no new ones"
    what.add_argument("--report", action="store_true", help=alone)
    each = "print one command per unfinished run, for example for a SLURM array, and stop"
    what.add_argument("--print_commands", action="store_true", help=each)
    what.add_argument("--run", metavar="NAME", help="do only this run, without a report: what --print_commands prints")
    tables = "with --report: folder with results.csv and training.csv, for runs that are not in the study's folder"
    group.add_argument("--results", type=a_path, metavar="DIR", help=tables)
    add_settings(parser.add_argument_group("settings of all runs"), OVERRIDES)
    namespace = parser.parse_args(argv)
    refuse_if(namespace.jobs < 1, f"--jobs {namespace.jobs}: at least 1")
    refuse_if(namespace.results and not namespace.report, "--results is for --report: add --report")
    return namespace, {name: value for name, value in given_settings(namespace).items() if name in OVERRIDES}


def print_commands(runs: Iterable[Run]) -> None:
    """Print a command for each unfinished run, for example for a SLURM array; it starts or continues the run."""
    from study.runs import DONE, outcome

    typed = [word for word in sys.argv[1:] if word != "--print_commands"]
    for run in runs:
        if outcome(run).state not in DONE:
            print(shlex.join(["python", "compare.py", *typed, "--run", run.name]))


def run_missing(study: Study, runs: Sequence[Run], jobs: int, whole: Study | None) -> None:
    """Run the unfinished runs, then make the report of the whole study. whole: None for no report.

    Raises UserError if some runs are still not finished.
    """
    from study.jobs import run_all
    from study.runs import DONE, outcome
    from training.checkpoints.run_dir import locked

    make_folder(study.folder)
    with locked(study.folder) if whole else contextlib.nullcontext():
        claim(study)
        known = {run.name: found for run in runs if (found := outcome(run)).state in DONE}
        todo = [run for run in runs if run.name not in known]
        if todo:
            run_all(study, todo, jobs, len(known))
        if whole:
            report(whole, known)
    rest = [run.name for run in todo if outcome(run).state not in DONE]
    refuse_if(rest, f"not finished: {', '.join(rest)}. Type the same command again to continue")


def report(study: Study, known: Mapping[str, Any], tabled: Sequence[Any] = (), forced: bool = False) -> None:
    """Write the tables and, if they have changed or `forced`, report.html; print a summary.

    known: {name: Outcome} of runs already looked at. tabled: Results read from tables, for runs that are not in the
    study's folder. Raises UserError if there are no runs.
    """
    from study.results import collect, tally
    from study.tables import write_tables

    found = {result.run.name: result for result in [*tabled, *collect(study.runs(), known)]}
    results = [found[run.name] for run in study.runs() if run.name in found]
    refuse_if(not results, f"{study.folder} holds no run of this study yet")
    make_folder(study.folder)
    written, page = write_tables(study.folder, results), study.folder / "report.html"
    if forced or not page.is_file() or page.stat().st_mtime_ns < max(path.stat().st_mtime_ns for path in written):
        from study.report import make_report

        print("drawing the figures")
        make_report(study.only([result.run for result in results]), results)
    print(f"{study.name}: {tally(result.outcome.state for result in results)} of {len(study.runs())} runs")
    print(f"  {page}\n  {written[0]}")


def report_alone(study: Study, whole: Study, tables: str | None) -> None:
    """Report on a study or a part of it, from its runs and from other tables."""
    from study.tables import read_tables

    claim(study, write=False)
    part = tables and Path(tables).resolve() == study.folder.resolve() and len(study.runs()) < len(whole.runs())
    refuse_if(part, f"{study.folder} has tables of more runs, which these would replace: choose another --out")
    report(study, {}, read_tables(whole, Path(tables)) if tables else (), forced=True)


def main() -> None:
    namespace, settings = parse_args()
    chosen = {key: getattr(namespace, key) for key in GRID}
    chosen["seeds"] = namespace.seeds and [*itertools.chain(*namespace.seeds)]
    study = load_study(namespace.config, namespace.out, namespace.quick, settings, **chosen)
    # The whole study, so that running a part of it removes nothing from the report.
    whole = load_study(namespace.config, namespace.out, overrides=settings).with_all_of(study)
    whole = whole._replace(seeds=tuple(sorted({*whole.seeds, *seeds_of(study.folder)})))
    runs = [run for run in study.runs() if namespace.run in (None, run.name)]
    refuse_if(not runs, f"{study.name} has no run {namespace.run}: they are named METHOD_SETTING_seedK")
    if namespace.print_commands:
        print_commands(runs)
    elif namespace.report:
        report_alone(study if namespace.seeds else study._replace(seeds=whole.seeds), whole, namespace.results)
    else:
        run_missing(study, runs, namespace.jobs, None if namespace.run else whole)


if __name__ == "__main__":
    run_as_script(main)
