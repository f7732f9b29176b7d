"""What a run can be told: every setting, where its value comes from, which exclude each other, and the command line."""
