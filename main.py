"""Train a GAN, then score it. Without any flag, this trains an SN-DCGAN on 8x8 digits."""

import utils  # noqa: F401, must be first: it reports missing packages

# isort: split
from settings.command_line import parse_args
from utils.console import command
from utils.errors import run_as_script


def main() -> None:
    flags, dry_run = parse_args(__doc__)

    # Imported only now, as they need torch: --help and a mistyped flag answer at once.
    import evaluate
    from datasets import load_split
    from evaluation.evaluator import Evaluator
    from evaluation.inputs.features import missing_weights, settled
    from train import train
    from training import prepare
    from training.reporting import page
    from utils.distributed import on_rank_zero, processes, rank_zero_first, say_once, select_device

    with processes():
        config = prepare(flags, dry_run)
        # Check what evaluation needs before hours of training, and start with what is quick to check.
        with rank_zero_first():
            missing = missing_weights(config)
            images = load_split(config)
        scored, evaluator = settled(config, images, missing, say_once), None
        if scored:
            config, evaluator = scored, Evaluator(scored, images, select_device(config.device), say=say_once)
            evaluator.plans(config.protocol)
        path = train(config, evaluator, images)

        run_dir, written = path.parent.parent, []
        if evaluator:
            say_once("\nscoring the last checkpoint")
            on_rank_zero(page.refresh, run_dir, page.Now(config.total_steps, doing="trained, and being scored"))
            changed = {name: getattr(config, name) for name in evaluate.OVERRIDES}  # --resume may have changed them
            written = evaluate.score([path], evaluator, settings=changed)
        else:
            say_once(f"\nnot scored. {command('python', 'evaluate.py', run_dir)} prints what is missing")
        say_once("\nworth opening:")
        report = run_dir / page.NAME
        grid = sorted((run_dir / "samples").glob("step_*.png"))[-1:]
        pictures = (*grid, run_dir / "plots" / "samples.gif", run_dir / "plots" / "curves.png")
        for file in dict.fromkeys((report, *pictures, *written)):
            if file.exists():
                say_once(f"  {file}")


if __name__ == "__main__":
    run_as_script(main)
