"""From a generator or images to scores: samples, features, the real side, formulas, warnings and reports.

And the audit of a discriminator (lipschitz.py): how steep it is, and what bounds that. It imports nothing by itself, so
that the names of the scores are had without torch.
"""
