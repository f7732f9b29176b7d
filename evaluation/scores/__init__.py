"""The formulas from features to scores, one file for each kind."""
