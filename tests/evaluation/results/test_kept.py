"""Scores stay: what replaces what, what stands at the top, and files that are damaged, foreign or of older versions."""

import json
from multiprocessing import Process

import pytest
from evaluation_results import result

from evaluation.results import kept
from settings.config import Config
from utils.errors import UserError

CHANGES = {
    **{"ema": False, "seed": 1, "name": "paper", "num_samples": 500, "num_real": 100, "split": "test"},
    **{"features": "inception-v3-compat", "features_sha256": "1" * 64, "reference": "folder", "data_sha256": "2" * 64},
    **{"samples_sha256": "3" * 64, "dataset": "mnist", "inception_score_samples": 50},
}


def changed(step=400, fid=1.0, **protocol):
    found = result(step, fid)
    return found | {"protocol": found["protocol"] | protocol}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_scored_in_another_way_replaces_nothing(tmp_path, name):
    first, other = result(400, 9.0), changed(400, 5.0, **{name: CHANGES[name]})
    kept.write(tmp_path / "evaluation", [first])
    assert kept.write(tmp_path / "evaluation", [other]) == [first, other]
    assert json.loads((tmp_path / "evaluation.json").read_text())["results"] == [first, other]


def test_the_same_scored_again_replaces_that_one_wherever_the_run_lies_now(tmp_path):
    others = [result(800, 4.0), result(1200, 6.0)]
    kept.write(tmp_path / "evaluation", [result(400, 9.0), *others])
    again = changed(400, 8.0, versions={"torch": "3"}, device="cuda") | {"checkpoint": "/elsewhere/step_000400.pt"}
    assert kept.write(tmp_path / "evaluation", [again]) == [again, *others]


def test_intervals_stay_only_beside_the_same_fid(tmp_path):
    interval = {"fid_interval": {"low": 1, "high": 2}}
    kept.write(tmp_path / "evaluation", [result(400, 9.0, **interval)])
    assert kept.write(tmp_path / "evaluation", [result(400, 9.0)]) == [result(400, 9.0, **interval)]
    assert kept.write(tmp_path / "evaluation", [result(400, 9.5)]) == [result(400, 9.5)]


def test_the_top_is_of_the_last_step_ema_data_set_and_most_samples_and_the_best_among_what_compares(tmp_path):
    top = changed(1200, 4.0, num_samples=9000)
    weaker = [changed(1200, 0.1, ema=False), changed(1200, 0.1, num_samples=500), changed(1200, 0.1, name="paper")]
    weaker += [changed(1200, 0.1, reference="folder", num_samples=99999), result(800, 0.1)]
    kept.write(tmp_path / "evaluation", [changed(400, 3.0, num_samples=9000), top, *weaker])
    content = json.loads((tmp_path / "evaluation.json").read_text())
    assert {name: content[name] for name in top} == top
    assert (content["best"]["step"], content["last"]["step"]) == (400, 1200)  # 0.1 is of another protocol or count


@pytest.mark.parametrize(
    "text", ["", '{"fid": ', "[]", "null", "[" * 100_000, "\x00\xff", '{"loss": 3}', '{"fid": NaN}']
)
def test_a_file_that_holds_no_scores_is_kept_aside_and_said(tmp_path, capsys, text):
    path = tmp_path / "evaluation.json"
    path.write_text(text, encoding="latin-1")
    assert kept.write(tmp_path / "evaluation", [result(400, 9.0)]) == [result(400, 9.0)]
    assert json.loads(path.read_text()) == result(400, 9.0)
    assert (tmp_path / "evaluation.json.damaged").read_text(encoding="latin-1") == text
    assert f"{path} " in (said := capsys.readouterr().out) and "renamed to evaluation.json.damaged" in said
    path.write_text("again")
    kept.write(tmp_path / "evaluation", [result(400, 9.0)])
    assert (tmp_path / "evaluation.json.damaged-2").read_text() == "again"


def test_of_a_file_that_is_damaged_in_part_the_whole_scores_go_on(tmp_path, capsys):
    broken = [{"fid": "9"}, 3, changed(800, 2.0, num_samples="many"), changed(900, float("inf"))]
    (tmp_path / "evaluation.json").write_text(json.dumps({"results": [result(400, 9.0), *broken]}))
    assert kept.write(tmp_path / "evaluation", [result(1200, 4.0)]) == [result(400, 9.0), result(1200, 4.0)]
    assert "renamed to evaluation.json.damaged; 1 intact results kept" in capsys.readouterr().out


def test_a_result_without_some_scores_is_read_and_stays(tmp_path, capsys):
    old = result(400, 9.0)
    for name in ("checkpoint", "kid", "precision", "recall", "memorisation", "warnings"):
        del old[name]
    del old["protocol"]["inception_score_samples"]
    (tmp_path / "evaluation.json").write_text(json.dumps(old))
    assert kept.write(tmp_path / "evaluation", [result(1200, 4.0)]) == [old, result(1200, 4.0)]
    assert not capsys.readouterr().out


def test_a_place_that_cannot_be_written_is_an_error_in_words(tmp_path):
    with pytest.raises(UserError, match="cannot write"):
        kept.write(tmp_path / "absent" / "evaluation", [result(400, 9.0)])


def test_two_processes_that_score_one_run_lose_nothing(tmp_path):
    stem = tmp_path / "evaluation"
    writers = [Process(target=_write_each, args=(stem, range(start, 40, 2))) for start in (0, 1)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert [kept.step_of(found) for found in kept.read(stem)] == list(range(40))


def _write_each(stem, steps):
    for step in steps:
        kept.write(stem, [result(step, 1.0)])


def test_scores_stand_where_they_are_what_is_asked_for(tmp_path):
    stem, config = tmp_path / "evaluation", Config(num_samples=5000, protocol=("modern",))
    interval = result(400, 9.0, fid_interval={"low": 1, "high": 2})
    kept.write(stem, [interval, changed(400, 8.0, ema=False), changed(400, 7.0, num_samples=500)])
    assert kept.standing(stem, config, 400, True) == [interval]
    assert kept.standing(stem, config, 400, True, needs=["fid_interval"]) == [interval]
    assert kept.standing(stem, config, 400, True, needs=["fid_infinity"]) is None
    assert kept.standing(stem, config, 400, True, "folder") is None
    assert kept.standing(stem, config, 800, True) is None
    for change in ({"num_samples": 4000}, {"seed": 3}, {"features": "inception"}, {"protocol": ("modern", "test")}):
        assert kept.standing(stem, Config(**{"num_samples": 5000} | change), 400, True) is None
