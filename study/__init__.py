"""Many runs, one report: methods x settings x seeds, their results, and figures with computed sentences.

Imports no torch by itself, so that compare.py answers at once.
"""

from .grid import GRID, Study, claim, load_study, seeds_of

__all__ = ["GRID", "Study", "claim", "load_study", "seeds_of"]
