"""What a run needs around the mathematics."""
