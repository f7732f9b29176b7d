"""What was scored: evaluation.json, tables and pictures."""
