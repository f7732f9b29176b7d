"""Does spectral normalization help? Many runs, one report: methods x the paper's settings A to F x seeds.

Runs that are finished are skipped, and those that were cut off go on. The report is made of the run directories.
"""

import utils  # noqa: F401, first, since it says which package is missing

# isort: split
import argparse
import contextlib
import functools
import shlex
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from settings.command_line import Parser, a_path, add_settings, given_settings
from study.grid import GRID, Run, Study, claim, load_study, seeds_of
from utils.errors import Stopped, UserError, run_as_script
from utils.files import make_folder
from utils.signals import handled

CONFIG = "configs/studies/digits.yaml"
OVERRIDES = (
    *("audit_every", "base_channels", "conditional", "data_dir", "dataset", "device", "eval_every", "features"),
    *("image_size", "inception_weights", "num_samples", "protocol", "sample_every", "total_steps"),
)


def parse_args(argv: Sequence[str] | None = None) -> tuple[argparse.Namespace, dict[str, Any]]:
    """Returns (namespace, the typed settings, which go before the study's own)."""
    parser = Parser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--config", type=a_path, default=CONFIG, help=f"the study's YAML (default: {CONFIG})")
    parser.add_argument("--out", type=a_path, metavar="DIR", help="its folder (default: runs/studies/NAME)")
    parser.add_argument("--quick", action="store_true", help="a small part of the grid; its runs count for all of it")
    for key, choices in GRID.items():
        parser.add_argument(f"--{key}", nargs="+", metavar=key.upper(), help=f"only these of: {', '.join(choices)}")
    parser.add_argument("--seeds", nargs="+", type=int, help="only these")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side; the cores are shared out (default: 1)")
    parser.add_argument(
        "--results",
        type=a_path,
        metavar="DIR",
        help="with --report: a folder with results.csv and training.csv, for the runs that the study's folder lacks",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--report", action="store_true", help="make the report of what there is of it, and run nothing")
    what.add_argument("--run", metavar="NAME", help="this run alone, and no report: what --print_commands prints")
    what.add_argument(
        "--print_commands", action="store_true", help="print a command for each run that is not finished, and stop"
    )
    add_settings(parser.add_argument_group("settings of all runs"), OVERRIDES)
    namespace = parser.parse_args(argv)
    if namespace.jobs < 1:
        raise UserError(f"--jobs {namespace.jobs}: at least 1")
    if namespace.results and not namespace.report:
        raise UserError("--results is for --report, which draws what the tables in it tell of; add --report")
    return namespace, {name: value for name, value in given_settings(namespace).items() if name in OVERRIDES}


def run_all(study: Study, runs: Sequence[Run], jobs: int, done: int = 0) -> None:
    """Run these, and write beside them why one failed. done: how many were before. Stopped by a signal, all saved."""
    from study.jobs import STOPPED, side_by_side
    from study.runs import DONE, begin, failure_path, outcome
    from utils.console import progress

    console = study.folder / "console"
    make_folder(console)
    by_name, paths = {run.name: run for run in runs}, {run.name: console / f"{run.name}.txt" for run in runs}
    printed: dict[str, int] = {}  # how long each run's file was before its start

    def give(run: Run) -> list[str] | None:
        words, why_not = begin(run)
        if why_not:
            bar.write(f"{run.name} is left alone: {why_not}")
        path = paths[run.name]
        printed[run.name] = path.stat().st_size if path.exists() else 0
        return words

    calls = [(run.name, functools.partial(give, run), paths[run.name]) for run in runs]
    with (
        progress(total=done + len(runs), initial=done, label=study.name, unit="run", delay=0) as bar,
        handled(dict.fromkeys((signal.SIGINT, signal.SIGTERM), interrupt)),  # also where a shell had it ignore SIGINT
        contextlib.closing(side_by_side(calls, jobs)) as ended,  # closed, it waits till what runs has saved itself
    ):
        for name, code in ended:
            bar.update()
            found = outcome(by_name[name])
            if found.state == "diverged":
                bar.write(f"{name} diverged: {found.message}")
            elif code and code not in STOPPED and found.state not in DONE:
                message = _reason(paths[name], printed[name], code)
                bar.write(f"{name} failed: {message}")
                with contextlib.suppress(OSError):  # a full disk is no reason to stop the others
                    failure_path(by_name[name]).write_text(message + "\n", encoding="utf-8")


def interrupt(number: int, frame: Any) -> None:
    """Answer a signal: end this process, and before that, as they unwind, its runs."""
    raise Stopped("stopped; what was running has saved itself. The same command goes on", number)


def _reason(console: Path, start: int, code: int) -> str:
    """Why a run ended with this exit code: a signal's number, or the last line that it printed, from `start` on."""
    if code < 0:
        return f"killed by signal {-code}" + (" (is there enough memory?)" if code == -9 else "")
    with contextlib.suppress(OSError):
        lines = console.read_bytes()[start:].decode("utf-8", errors="replace").splitlines()
        if lines := [line.strip() for line in lines if line.strip()]:
            return lines[-1][:300]
    return f"exit code {code}"


def print_commands(runs: Iterable[Run]) -> None:
    """A command for each run that is not finished, as for a SLURM array: it starts the run or goes on with it."""
    from study.runs import DONE, outcome

    typed = [word for word in sys.argv[1:] if word != "--print_commands"]
    for run in runs:
        if outcome(run).state not in DONE:
            print(shlex.join(["python", "compare.py", *typed, "--run", run.name]))


def report(
    study: Study, forced: bool, known: Mapping[str, Any] | None = None, tabled: Sequence[Any] | None = None
) -> None:
    """Write the tables and, where they have changed since, report.html; say where they are and what the runs came to.

    known: {name: Outcome} of runs that need not be looked at again. tabled: Results read from tables, of runs that the
    study's own folder may lack.
    """
    from study.results import collect, tally
    from study.tables import write_tables

    results = collect(study.runs(), known or {})
    if tabled is not None:
        found = {r.run.name: r for r in tabled} | {r.run.name: r for r in results}
        results = [found[run.name] for run in study.runs() if run.name in found]
        make_folder(study.folder)
    if not results:
        raise UserError(f"{study.folder} holds no run of this study yet")
    written, page = write_tables(study.folder, results), study.folder / "report.html"
    if forced or not page.is_file() or page.stat().st_mtime_ns < max(path.stat().st_mtime_ns for path in written):
        from study.report import make_report

        print("drawing the figures")
        make_report(study.only([result.run for result in results]), results)
    print(f"{study.name}: {tally(result.outcome.state for result in results)} of {len(study.runs())} runs")
    print(f"  {page}\n  {written[0]}")


def main() -> None:
    namespace, settings = parse_args()
    chosen = {key: getattr(namespace, key) for key in (*GRID, "seeds")}
    study = load_study(namespace.config, namespace.out, namespace.quick, settings, **chosen)
    runs = study.runs()
    if namespace.print_commands:
        print_commands(runs)
        return
    if namespace.run is not None:
        runs = [run for run in runs if run.name == namespace.run]
        if not runs:
            raise UserError(f"{study.name} has no run {namespace.run}: they are named METHOD_SETTING_seedK")
    # All that there is of this study, so that a part of it takes nothing from the report.
    whole = load_study(namespace.config, namespace.out, overrides=settings).with_all_of(study)
    whole = whole._replace(seeds=tuple(sorted({*whole.seeds, *seeds_of(study.folder)})))
    if namespace.report:
        from study.tables import read_tables

        claim(study, write=False)
        if namespace.seeds is None:
            study = study._replace(seeds=whole.seeds)
        same = namespace.results and Path(namespace.results).resolve() == study.folder.resolve()
        if same and len(study.runs()) < len(whole.runs()):
            raise UserError(f"{study.folder} has tables of more runs, which these would replace: choose another --out")
        report(study, forced=True, tabled=read_tables(whole, Path(namespace.results)) if namespace.results else None)
        return
    from study.runs import DONE, outcome
    from training.checkpoints.run_dir import locked

    make_folder(study.folder)
    with contextlib.nullcontext() if namespace.run else locked(study.folder):
        claim(study)
        known = {run.name: found for run in runs if (found := outcome(run)).state in DONE}
        todo = [run for run in runs if run.name not in known]
        if todo:
            run_all(study, todo, namespace.jobs, len(known))
        if not namespace.run:
            report(whole, forced=False, known=known)
    if namespace.run and not todo:
        print(f"{namespace.run} is {known[namespace.run].state} already")
    if rest := [run.name for run in todo if outcome(run).state not in DONE]:
        raise UserError(f"not finished: {', '.join(rest[:5])}{' ...' * (len(rest) > 5)}. The same command goes on")


if __name__ == "__main__":
    run_as_script(main)
