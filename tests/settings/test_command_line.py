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
        ("--loss hing", "hinge"),
        ("--image_size 33", "48"),
        ("--seed x", "--seed"),
        ("--betas 0.5", "--betas"),
        ("--data d", "unrecognized"),  # no abbreviations
    ],
)
def test_a_mistyped_flag_exits_with_code_2_and_says_what_was_meant(capsys, argv, message):
    with pytest.raises(SystemExit) as stop:
        parse_args("", argv.split())
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_total_steps_and_num_epochs_are_not_taken_together():
    with pytest.raises(UserError, match="--total_steps and --num_epochs exclude each other"):
        parse_args("", ["--total_steps", "7", "--num_epochs", "5"])


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
