"""Runs beside each other: means and spreads over seeds, rows' names, what does not compare, and escapes."""

import csv
import re

import pytest
from evaluation_results import result

from evaluation.results import table
from settings.config import Config
from utils.errors import UserError

REAL = {"what": "test images", "num": 299, "inception_score": {"mean": 9.75, "std": 1}, "fid": 0.25, "recall": 0.5}


def scored(name, fid, step=400, config=None, protocol=None, **others):
    """A run of that name and FID; protocol: what else its scores were measured under."""
    found = result(step, fid, **others)
    found["protocol"] |= protocol or {}
    return table.Scored(name, Config(**config or {}), found)


def seeds(name, fids, **settings):
    return [scored(f"runs/{name}_seed{i}", fid, config={**settings, "seed": i}) for i, fid in enumerate(fids)]


def test_seeds_of_a_configuration_are_a_mean_and_a_spread_named_by_what_differs(tmp_path):
    target = tmp_path / "t.md"
    rows = table.write(target, [*seeds("a", [2.0, 4.0, 6.0]), *seeds("b", [5.0], d_norm=("batch",), loss="bce")])
    assert [(row.name, row.n, row.scores["fid"]) for row in rows] == [
        ("d_norm spectral, loss hinge", 3, (4.0, 2.0)),
        ("d_norm batch, loss bce", 1, (5.0, None)),
    ]
    text = target.read_text(encoding="utf-8")
    assert "| d\\_norm spectral, loss hinge | 3 | 8.40 ± 0.00 | 4.00 ± 2.00 | 0.5000 ± 0.0000 | 0.75 ± 0.00 |" in text
    assert "| d\\_norm batch, loss bce | 1 | 8.40 | 5.00 |" in text
    assert "All scores: modern: 5,000 samples, 50,000 train images" in text and "At step 400." in text
    assert text.count("5,000 samples, not 50,000") == 1


def test_what_says_where_or_how_far_a_run_goes_makes_no_other_row():
    other = {"data_dir": "elsewhere", "log_every": 7, "device": "cpu", "total_steps": 9, "seed": 1}
    (row,) = table.rows([scored("runs/x_seed0", 1.0), scored("runs/x_seed1", 3.0, config=other)])
    assert (row.name, row.n) == ("x", 2)
    falling = [scored("a", 1.0, config={"lr_decay": "linear", "total_steps": n}) for n in (400, 900)]
    assert [row.name for row in table.rows(falling)] == ["total_steps 400", "total_steps 900"]


def test_a_single_run_has_its_own_name_and_so_have_runs_that_differ_in_many_settings():
    assert [row.name for row in table.rows(seeds("only", [1.0]))] == ["only_seed0"]
    many = {"dataset": "mnist", "image_size": 64, "z_dim": 7, "loss": "bce", "n_dis": 5}
    assert [row.name for row in table.rows([*seeds("a", [1, 2]), *seeds("b", [3], **many)])] == ["a", "b_seed0"]


@pytest.mark.parametrize(
    "other", [{"num_samples": 500}, {"name": "paper"}, {"features_sha256": "1" * 64}, {"data_sha256": "2" * 64}]
)
def test_what_does_not_compare_is_neither_averaged_nor_put_into_one_column_silently(tmp_path, other):
    target = tmp_path / "t.md"
    first, second = scored("x_seed0", 1.0), scored("x_seed1", 3.0, config={"seed": 1}, protocol=other)
    rows = table.write(target, [first, second])
    assert [row.n for row in rows] == [1, 1] and rows[0].label != rows[1].label
    text = target.read_text(encoding="utf-8")
    assert "| scored as |" in text and "| A | 1 |" in text and "| B | 1 |" in text
    assert "Scores with different letters cannot be compared. A: modern" in text


def test_other_steps_and_g_itself_are_rows_of_their_own():
    found = [scored("x_seed0", 1.0), scored("x_seed1", 3.0, step=800, config={"seed": 1})]
    found.append(scored("x_seed2", 5.0, config={"seed": 2}, protocol={"ema": False}))
    rows = table.rows(found)
    assert [(row.name, row.step, row.n) for row in rows] == [("x", 400, 1), ("x", 800, 1), ("x, G itself", 400, 1)]


def test_a_row_says_that_it_is_of_g_itself_where_there_is_an_ema():
    for ema, config, name in ((False, {}, "a, G itself"), (True, {}, "a"), (False, {"ema_decay": 0.0}, "a")):
        (row,) = table.rows([scored("a", 2.0, config=config, protocol={"ema": ema})])
        assert row.name == name and "G itself" not in row.label


def test_real_images_are_the_last_row(tmp_path):
    rows = table.write(
        tmp_path / "t.csv", [scored("a", 2.0, held_out={"reason": "?"}), scored("b", 3.0, held_out=REAL)]
    )
    assert (rows[-1].name, rows[-1].n) == ("real test images (299)", None)
    with open(tmp_path / "t.csv", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    assert (last["inception_score"], last["fid"], last["kid"], last["recall"]) == ("9.75", "0.25", "", "0.5")
    assert last["protocol"].startswith("modern: 5,000 samples")


def test_names_are_escaped(tmp_path):
    strange = "a|b_c&d%e$f#g{h}~i^j\\k*l<m"
    for suffix in (".md", ".tex", ".csv"):
        table.write(tmp_path / f"t{suffix}", [scored(strange, 2.0)])
    assert r"| a\|b\_c\&d%e\$f\#g{h}\~i^j\\k\*l\<m | 1 |" in (tmp_path / "t.md").read_text(encoding="utf-8")
    text = (tmp_path / "t.tex").read_text(encoding="utf-8")
    expected = (
        r"a\textbar{}b\_c\&d\%e\$f\#g\{h\}\textasciitilde{}i\textasciicircum{}j\textbackslash{}k{*}l\textless{}m & 1 &"
    )
    assert expected in text
    for line in re.findall(r".* & .*", text):
        assert len(re.findall(r"(?<!\\)&", line)) == 6 and line.endswith(r"\\")
    with open(tmp_path / "t.csv", newline="") as file:
        assert next(csv.DictReader(file))["configuration"] == strange


def test_tex_is_balanced_and_no_name_is_taken_for_a_command(tmp_path):
    strange = "50%_off & {half #1 $x^2~"
    rows = [scored("[2ex] a", 2.0), scored("* b", 3.0, config={"loss": "bce"}, protocol={"num_samples": 500})]
    table.write(tmp_path / "t.tex", [*rows, scored(strange, 4.0, config={"loss": "bce", "z_dim": 7, "model": "mlp"})])
    table.write(tmp_path / "named.tex", [scored(rows[0].name, 2.0), scored("x", 2.0, protocol={"reference": strange})])
    for name in ("t.tex", "named.tex"):
        text = (tmp_path / name).read_text(encoding="utf-8").split("\n", 1)[1]  # the first line is a comment
        bare = re.sub(r"\\[&%$#_{}\\]", "", text)  # without what is escaped, and the ends of rows
        depth = 0
        for sign in bare:
            depth += (sign == "{") - (sign == "}")
            assert depth >= 0
        assert depth == 0 and bare.count("$") % 2 == 0
        assert not re.search(r"[%#~]|(?<!\$)\^", bare)
        assert "_" not in bare
        environments = re.findall(r"\\(begin|end)\{(\w+)\}", text)
        assert environments == [("begin", "table"), ("begin", "tabular"), ("end", "tabular"), ("end", "table")]
        assert not re.search(r"\\\\\s*[\[*]", text)  # these after the end of a row are an argument of it


def test_a_table_is_made_anew_but_nothing_else_is_overwritten(tmp_path):
    for suffix in (".md", ".tex", ".csv"):
        target = tmp_path / f"t{suffix}"
        table.check(target)
        table.write(target, [scored("a", 2.0)])
        table.check(target)
        target.write_text("my thesis")
        with pytest.raises(UserError, match="another file is there"):
            table.check(target)
    (tmp_path / "folder.md").mkdir()
    with pytest.raises(UserError, match="another file is there"):
        table.check(tmp_path / "folder.md")


def test_a_seed_counts_once():
    configs = {"a": (Config(seed=1), 5), "b": (Config(seed=1, log_every=3), 5)}
    with pytest.raises(UserError, match="a and b have the same seed"):
        table.check_seeds(configs)
    table.check_seeds(configs | {"b": (Config(seed=1), 6)})
    table.check_seeds(configs | {"b": (Config(seed=2), 5)})
