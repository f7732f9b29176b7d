"""What everything may use: settings, errors, the terminal, files, processes, precision, pictures.

Imported first by each script: says which of the packages that the project needs are not installed.
"""

import importlib.util
import sys

NEEDED = ("torch", "torchvision", "numpy", "scipy", "matplotlib", "tqdm", "yaml", "torch_fidelity", "sklearn")

if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
    print(f"error: not installed: {', '.join(missing)}. Run: pip install -r requirements.txt", file=sys.stderr)
    raise SystemExit(2)
