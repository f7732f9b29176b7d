"""The command line: flags with the settings' types and ranges, mistyped ones, and the help."""

import re

import pytest

from settings.command_line import parse_args
from settings.config import FIELDS, GROUPS
from utils.errors import UserError


def test_flags_are_read_with_the_settings_types():
    typed = "--d_norm spectral batch --betas 0 0.9 --lr_G 2e-4 --g_sn --no_tensorboard --seed 3 --dry_run"
    flags, dry_run = parse_args("", typed.split())
    expected = {"d_norm": ("spectral", "batch"), "betas": (0.0, 0.9), "lr_G": 2e-4, "g_sn": True, "tensorboard": False}
    assert flags == {**expected, "seed": 3}
    assert dry_run is True
    assert parse_args("", []) == ({}, False)


@pytest.mark.parametrize("argv", ["--lr_G nan", "--lr_G inf", "--lr_G -1", "--seed -1", "--batch_size 1"])
def test_a_flag_out_of_range_is_refused_with_its_name(argv):
    with pytest.raises(UserError, match=f"^{argv.split()[0]} must be "):
        parse_args("", argv.split())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--lr_g 1", "did you mean --lr_G"),
        ("--batchsize=4", "did you mean --batch_size"),
        ("--d-norm none", "did you mean --d_norm"),
        ("--learning_rate 1", "did you mean --lr_G or --lr_D"),
        ("--lr=1", "did you mean --lr_G or --lr_D"),
        ("--BATCH-SIZE 4", "did you mean --batch_size"),
        ("--steps 4", "did you mean --total_steps"),
        ("--betas 0.5", "--betas"),
        ("--betas 0.5,0.9", "expected 2 arguments, with spaces between them"),
        ("--dry_run --dry_run", "--dry_run is given twice"),
        ("--data d", "unrecognized"),  # no abbreviations
    ],
)
def test_a_mistyped_flag_exits_with_code_2_and_says_what_was_meant(capsys, argv, message):
    with pytest.raises(SystemExit) as stop:
        parse_args("", argv.split())
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--loss hing", "--loss must be one of bce, hinge, .*, not 'hing'; did you mean hinge"),
        ("--dataset minst", ".*not 'minst'; did you mean mnist"),
        ("--d_norm spectral_norm", ".*not 'spectral_norm'; did you mean spectral"),
        ("--image_size 33", "--image_size must be one of 8, .*, not 33"),
        ("--seed x", "--seed must be a whole number, not 'x'"),
        ("--mirror maybe", "--mirror must be true or false, not 'maybe'"),
    ],
)
def test_a_bad_value_is_refused_as_that_of_a_file_is(argv, message):
    with pytest.raises(UserError, match=f"^{message}"):
        parse_args("", argv.split())


@pytest.mark.parametrize(
    ("argv", "flags"),
    [
        ("--mirror true", {"mirror": True}),
        ("--mirror", {"mirror": True}),
        ("--mirror False --seed 3", {"mirror": False, "seed": 3}),
        ("--eval_kid no", {"eval_kid": False}),
        ("--d_norm spectral,batch", {"d_norm": ("spectral", "batch")}),
        ("--d_norm spectral, batch", {"d_norm": ("spectral", "batch")}),
        ("--dataset MNIST", {"dataset": "mnist"}),
        ("--dataset fashion-mnist", {"dataset": "fashion_mnist"}),
        ("--attention none", {"attention": None}),
        ("--betas -0 .9", {"betas": (0.0, 0.9)}),
    ],
)
def test_a_value_is_understood_as_it_would_be_in_a_file(argv, flags):
    assert parse_args("", argv.split())[0] == flags


@pytest.mark.parametrize(("argv", "seed"), [("--seed 1 --seed 2", 2), ("--seed=2 --loss bce --seed=1", 1)])
def test_a_setting_that_is_given_twice_is_the_last_one_and_that_is_said(capsys, argv, seed):
    assert parse_args("", argv.split())[0]["seed"] == seed
    assert capsys.readouterr().err == "--seed is given twice: the last one counts\n"


def test_total_steps_and_num_epochs_are_not_taken_together():
    with pytest.raises(UserError, match="--total_steps and --num_epochs exclude each other"):
        parse_args("", ["--total_steps", "7", "--num_epochs", "5"])
    assert parse_args("", ["--total_steps", "7", "--num_epochs", "none"])[0] == {"total_steps": 7, "num_epochs": None}


def test_help_lists_every_setting_in_its_group(capsys):
    with pytest.raises(SystemExit) as stop:
        parse_args("What it is.", ["--help"])
    assert stop.value.code == 0
    usage, _, *groups = capsys.readouterr().out.split("\n\n")
    assert usage.startswith("usage: python ") and len(usage.splitlines()) <= 2
    titles = [group.splitlines()[0].strip(":") for group in groups]
    assert titles == ["options", *GROUPS]
    listed = {title: re.findall(r"^  --(\w+)", group, re.MULTILINE) for title, group in zip(titles, groups)}
    assert listed.pop("options") == ["dry_run"]
    assert listed == {t: [name for name, f in FIELDS.items() if f.metadata["group"] == t] for t in GROUPS}


def test_help_says_how_many_values_a_flag_takes_of_which_and_what_it_is_by_default(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "500")
    with pytest.raises(SystemExit):
        parse_args("", ["--help"])
    lines = " ".join(capsys.readouterr().out.split())
    assert "--n_dis N updates of D, each on a new batch, for each update of G (default: 1)" in lines
    assert re.search(r"--d_norm NAME \[NAME \.\.\.\] [^(]*One or more of none, [^(]* \(default: spectral\)", lines)
    assert "--lr_cosine START END IMAGES" in lines and "--run_dir PATH" in lines
    assert "--lr_decay {none,linear}" in lines
