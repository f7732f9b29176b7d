"""The settings of a run: their definitions, their sources, the rules between them, and the command line."""
