"""Many runs, one report: methods x settings x seeds, their results, figures and tables."""
