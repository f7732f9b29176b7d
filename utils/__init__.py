"""Helpers for all packages: errors, the terminal, files, locks, processes, threads, precision, pictures.

Each script imports this first. It reports an old Python and missing packages, answers Ctrl-C during imports, and sets
how OpenMP's threads wait before torch loads OpenMP. Older Pythons can read this file.
"""

import importlib.util
import os
import signal
import sys
from types import FrameType

if sys.version_info < (3, 11):  # noqa: UP036
    found = "{}.{}.{} ({})".format(*sys.version_info[:3], sys.executable)
    words = "Python 3.11 or newer is needed, but this is {}. Run, for example: python3.11 {}"
    print("error: " + words.format(found, " ".join(sys.argv)), file=sys.stderr)
    raise SystemExit(2)


def interrupted(number: int, frame: FrameType | None) -> None:
    """Answer Ctrl-C: raise KeyboardInterrupt, or exit at once during an import, which might swallow it."""
    while frame and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    if frame:
        os.write(2, b"\ninterrupted\n")
        os._exit(130)
    raise KeyboardInterrupt


# Only in this project's scripts: a notebook that imports it has its own handler.
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SCRIPT = getattr(sys.modules["__main__"], "__file__", None) or ""
if os.path.dirname(os.path.abspath(SCRIPT)) == ROOT and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, interrupted)

NEEDED = (
    *("torch", "torchvision", "numpy", "scipy", "matplotlib", "tqdm", "yaml", "torch_fidelity", "sklearn"),
    "safetensors",
)

missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
if missing:
    print(f"error: not installed: {', '.join(missing)}. Run: pip install -r requirements.txt", file=sys.stderr)
    raise SystemExit(2)

# OpenMP's threads spin while they wait for each other. If another program has a core, they spin for a thread that does
# not run, and steps took more than twice as long. Sleeping costs a tenth to a quarter of a step on an idle machine.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
