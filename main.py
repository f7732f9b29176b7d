"""The whole job: train a GAN, then score what was trained. `python main.py` alone trains SN-DCGAN on 8x8 digits."""

from utils.config import parse_args
from utils.errors import run_as_script


def main():
    flags, dry_run = parse_args(__doc__)

    # Only now what needs torch, so that --help and a mistyped flag answer at once.
    import evaluate
    import train
    from utils import data
    from utils.distributed import select_device
    from utils.metrics import Evaluator

    start = train.prepare(flags, dry_run)
    device = select_device(start.config.device)
    images = data.load_split(start.config)
    evaluator = Evaluator(start.config, images, device)  # what evaluation needs is checked before hours of training
    path = train.train(start, evaluator, images)

    print("\nscoring the last checkpoint")
    written = evaluate.score_checkpoint(path, evaluator)
    run_dir = start.run_dir
    grid = sorted((run_dir / "samples").glob("step_*.png"))[-1:]
    print("\nworth opening:")
    for file in (*grid, run_dir / "plots" / "samples.gif", run_dir / "plots" / "curves.png", written):
        print(f"  {file}")


if __name__ == "__main__":
    run_as_script(main)
