"""From features to numbers: one file for each kind of score."""
