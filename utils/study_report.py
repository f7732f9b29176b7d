def make_report(study, force):
    pass
