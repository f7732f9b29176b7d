"""The files of a run: its directory, checkpoints, exports, how it came about, and how it goes on."""
