"""What a run shows: log, statistics, curves, and one page that follows it."""
