"""The files of a run: directory, checkpoints, exports, record and resume."""
