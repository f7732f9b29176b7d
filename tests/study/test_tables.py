"""results.csv and training.csv: written only where they are new, read again to the same tables and figures."""

import pytest
from study_results import make_results, make_study

from study.report import figures
from study.runs import Outcome
from study.tables import read_tables, write_tables
from utils.errors import UserError
from utils.plots import pyplot

OF_IMAGES = {"singular_values", "film", "samples", "samples_by_setting"}


@pytest.fixture
def study(tmp_path):
    made_up = make_study(tmp_path, methods=("none", "spectral"), seeds=(0, 1))
    return made_up._replace(base={"total_steps": 3, "eval_every": 1, "audit_every": 3})


def made(study):
    """Results, of which one diverged, one collapsed, and G itself is scored beside its average."""
    found = make_results(study, lambda method, setting: 10 if method == "none" else 31.25)
    found[0] = found[0]._replace(outcome=Outcome("diverged", 2, 'NaN, "at" 2', record=found[0].outcome.record))
    found[1].outcome.evaluation["warnings"] = ["the generator has collapsed: a sample is as near as 0 to the next"]
    found[2].stats.append({"step": 3, "fid_of_G": 12345.678901})
    return found


def test_the_tables_are_written_only_where_they_say_something_new(study, tmp_path):
    results = made(study)
    paths = write_tables(tmp_path, results)
    assert [path.name for path in paths] == ["results.csv", "training.csv"]
    texts, written = [p.read_text(encoding="utf-8") for p in paths], [p.stat().st_mtime_ns for p in paths]
    assert [path.stat().st_mtime_ns for path in write_tables(tmp_path, results)] == written
    paths[0].write_bytes(texts[0].encode()[:-9] + b"\xff")
    paths[1].unlink()
    assert [path.read_text(encoding="utf-8") for path in write_tables(tmp_path, results)] == texts
    assert 'diverged,"NaN, ""at"" 2",2' in texts[0]
    assert "none_C_seed0,3," in texts[1] and ",12345.7," in texts[1]  # six digits are enough for a line


def test_what_the_tables_tell_of_makes_the_same_tables(study, tmp_path):
    before = [path.read_bytes() for path in write_tables(tmp_path, made(study))]
    found = read_tables(study, tmp_path)
    assert [path.read_bytes() for path in write_tables(tmp_path, found)] == before
    assert found[0].outcome[:3] == ("diverged", 2, 'NaN, "at" 2')
    assert [result.collapsed for result in found] == [False, True, *[False] * 6]
    assert {result.last["fid"] for result in found if result.run.seed == 0} == {10.0, 31.25}
    assert found[1].series("fid") == {1: 62.5, 2: 15.625, 3: 31.25} and found[1].seconds_per_step == 0.01
    assert found[1].best["step"] == 2 and found[1].final_audit["upper_bound"] == 1.0


def test_what_the_tables_tell_of_makes_the_same_figures_but_those_of_spectra_and_images(study, tmp_path):
    def drawn(results):
        found = {figure.name: (figure.title, figure.table) for figure in figures(study, results)}
        pyplot().close("all")
        return found

    results = made(study)
    write_tables(tmp_path, results)
    whole, again = drawn(results), drawn(read_tables(study, tmp_path))
    assert set(whole) - set(again) == OF_IMAGES
    assert again == {name: found for name, found in whole.items() if name not in OF_IMAGES}


def test_tables_that_are_none_are_refused_in_words(study, tmp_path):
    with pytest.raises(UserError, match=r"results\.csv cannot be read: .*No such file"):
        read_tables(study, tmp_path)
    path, training = write_tables(tmp_path, made(study))
    with pytest.raises(UserError, match=r"results\.csv has spectral_A_seed0, which is not a run of made_up"):
        read_tables(study._replace(methods=("none",)), tmp_path)
    whole = path.read_bytes()
    for text, words in (
        (b"run,method\nnone_A_seed0,none\n", "line 2 has too few or too many values"),
        (b"\xff", "cannot be read"),
        (b"run,outcome,reached\nspectral_A_seed0,finished,3\n", "spectral_A_seed0 has no score"),
        (whole + b"spectral_A_seed0,spectral\n", "line 10 has too few or too many values"),
        (whole.replace(b",none,A,", b",none,A,more,"), "line 2 has too few or too many values"),
    ):
        path.write_bytes(text)
        with pytest.raises(UserError, match=rf"results\.csv .*({words})"):
            read_tables(study, tmp_path)
    path.write_bytes(whole)
    for base in ({"total_steps": 4}, {"dataset": "mnist"}):
        with pytest.raises(UserError, match=r"has other total_steps or images than made_up: [a-zA-Z_0-9]+ differs"):
            read_tables(study._replace(base=study.base | base), tmp_path)
    path.write_bytes(whole)
    training.unlink()
    with pytest.raises(UserError, match=r"training\.csv cannot be read: .*No such file"):
        read_tables(study, tmp_path)
    training.write_text("run,step,fid\nnone_A_seed0,,1\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"training\.csv is damaged: line 2 has too few"):
        read_tables(study, tmp_path)
    training.write_text("run,step,fid\nnone_A_seed0,1,many\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"training\.csv cannot be read: could not convert"):
        read_tables(study, tmp_path)
