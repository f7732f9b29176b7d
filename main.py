"""The whole job: train a GAN, then score what was trained. `python main.py` alone trains SN-DCGAN on 8x8 digits."""

from pathlib import Path

from utils.errors import run_as_script
from utils.parser import parse_args


def main():
    flags, dry_run = parse_args(__doc__)

    # Only now what needs torch, so that --help and a mistyped flag answer at once.
    import evaluate
    from train import train
    from utils import data
    from utils.distributed import select_device
    from utils.evaluator import Evaluator
    from utils.run import prepare

    config = prepare(flags, dry_run)
    images = data.load_split(config)
    # What evaluation needs is checked before hours of training.
    device = select_device(config.device)
    evaluator = Evaluator(config, images, device)
    evaluator.check(config.protocol)
    path = train(config, evaluator, images)

    print("\nscoring the last checkpoint")
    changed = {name: getattr(config, name) for name in evaluate.OVERRIDES}  # a resume may score in another way
    written = evaluate.score([path], evaluator, settings=changed)
    run_dir = Path(config.run_dir)
    grid = sorted((run_dir / "samples").glob("step_*.png"))[-1:]
    print("\nworth opening:")
    for file in (*grid, run_dir / "plots" / "samples.gif", run_dir / "plots" / "curves.png", *written):
        if file.exists():
            print(f"  {file}")


if __name__ == "__main__":
    run_as_script(main)
