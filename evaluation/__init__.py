"""From a generator or images to scores: samples, features, real images, formulas, warnings and reports.

Also the audit of a discriminator (lipschitz.py): its gradients and the bounds of its Lipschitz constant. This file
imports nothing, so that the names of the scores can be read without torch.
"""
