"""The output of scoring: evaluation.json, tables and pictures."""
