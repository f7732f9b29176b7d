"""What several tests share: small settings, and runs that are started, broken, resumed and compared."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SMALL = {"base_channels": 4, "z_dim": 8, "batch_size": 8, "num_samples": 100}
TINY = [word for name, value in SMALL.items() for word in (f"--{name}", value)] + ["--total_steps", 2, "--log_every", 1]


def fails(done, *words):
    """The script said why, in words, without a traceback, with exit code 2."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: "), done.stderr
    for word in words:
        assert str(word) in done.stderr, done.stderr
