"""Reports on a run: log, statistics, curves, and an HTML page that follows it."""
