"""Does spectral normalization help? Many runs, one report: methods x the paper's settings A to F x seeds.

Runs that are finished are skipped, and those that were cut off go on. The report is made of the run directories.
"""

import contextlib
import shlex
import signal

from utils.errors import Stopped, UserError, run_as_script
from utils.parser import Parser, add_settings, given_settings
from utils.study import DONE, GRID, arguments, clear, failure_path, load_study, outcome

CONFIG = "configs/studies/digits.yaml"
OVERRIDES = ("data_dir", "device", "features", "inception_weights", "num_samples", "protocol", "total_steps")


def parse_args(argv=None):
    """Returns (namespace, the typed settings, which go before the study's own)."""
    parser = Parser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--config", default=CONFIG, help=f"the study's YAML (default: {CONFIG})")
    parser.add_argument("--out", metavar="DIR", help="its folder (default: runs/studies/NAME)")
    parser.add_argument("--quick", action="store_true", help="a small part of the grid; its runs count for all of it")
    for key, choices in GRID.items():
        parser.add_argument(f"--{key}", nargs="+", metavar=key.upper(), help=f"only these of: {', '.join(choices)}")
    parser.add_argument("--seeds", nargs="+", type=int, help="only these")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side; the cores are shared out (default: 1)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--report", action="store_true", help="make the report of what there is, and run nothing")
    what.add_argument(
        "--print_commands", action="store_true", help="print a command for each run that is not finished, and stop"
    )
    add_settings(parser.add_argument_group("settings of all runs"), OVERRIDES)
    namespace = parser.parse_args(argv)
    if namespace.jobs < 1:
        raise UserError(f"--jobs {namespace.jobs}: at least 1")
    return namespace, {name: value for name, value in given_settings(namespace).items() if name in OVERRIDES}


def run_all(study, runs, jobs):
    """Run what is not finished, and write beside the runs why one failed. Stopped after Ctrl-C, all saved."""
    from utils.jobs import STOPPED, side_by_side
    from utils.logger import progress
    from utils.run import locked

    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell had this process ignore the first
        signal.signal(number, signal.default_int_handler)
    with locked(study.folder):
        todo = {run.name: run for run in runs if outcome(run).state not in DONE}
        console = study.folder / "console"
        console.mkdir(exist_ok=True)
        calls = []
        for run in todo.values():
            failure_path(run).unlink(missing_ok=True)
            with contextlib.suppress(UserError):  # where another process trains it: that start will say so
                clear(run)
            calls.append((run.name, arguments(run), console / f"{run.name}.txt"))
        done = len(runs) - len(todo)
        with (
            progress(total=len(runs), initial=done, label=study.name, unit="run", delay=0, disable=not todo) as bar,
            contextlib.closing(side_by_side(calls, jobs)) as ended,
        ):
            try:
                for name, code in ended:
                    bar.update()
                    found = outcome(todo[name])
                    if found.state == "diverged":
                        bar.write(f"{name} diverged: {found.message}")
                    elif code and code not in STOPPED:
                        message = _reason(console / f"{name}.txt", code)
                        failure_path(todo[name]).write_text(message + "\n", encoding="utf-8")
                        bar.write(f"{name} failed: {message}")
            except KeyboardInterrupt:
                ended.close()  # waits till those that were running have saved themselves
                stopped = f"{study.name}: stopped, what was running is saved. The same command goes on"
                raise Stopped(stopped, signal.SIGINT) from None


def _reason(console, code):
    """Why a run ended with this exit code: a signal's number, or the last line that it printed."""
    if code < 0:
        return f"killed by signal {-code}" + (" (is there enough memory?)" if code == -9 else "")
    lines = [line.strip() for line in console.read_text(encoding="utf-8", errors="replace").splitlines()]
    return ([line for line in lines if line] or [f"exit code {code}"])[-1][:300]


def main():
    namespace, settings = parse_args()
    chosen = {key: getattr(namespace, key) for key in (*GRID, "seeds")}
    study = load_study(namespace.config, namespace.out, namespace.quick, settings, **chosen)
    runs = study.runs()
    if namespace.print_commands:
        for run in runs:
            if outcome(run).state not in DONE:
                print(shlex.join(["python", "main.py", *arguments(run)]))
        return
    try:
        study.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{study.folder} cannot be made: {error.strerror}") from error
    if not namespace.report:
        run_all(study, runs, namespace.jobs)

    from utils.study_results import collect, write_csv

    results = collect(study)
    changed = write_csv(study.folder, results)
    report = study.folder / "report.html"
    if changed or namespace.report or not report.is_file():
        from utils.study_report import make_report

        print("drawing the figures")
        make_report(study, results)
    states = [result.outcome.state for result in results]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    print(f"{study.name}: of {len(runs)} runs {counts}")
    print(f"  {report}\n  {study.folder / 'results.csv'}")
    rest = len(runs) - sum(map(states.count, DONE))
    if rest and not namespace.report:
        raise UserError(f"{rest} runs are not finished; the same command tries them again")


if __name__ == "__main__":
    run_as_script(main)
