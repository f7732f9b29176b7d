"""What a run shows of itself: for no more than its share of the time, and without ever ending the run."""

import pytest
from helpers import start

import train
from training.checkpoints.run_dir import latest
from training.reporting import page, showing


def spent(budget, now, cost, seconds, every):
    """What something of this cost takes in a run of so many seconds that asks for it every so often."""
    end = now[0] + seconds
    while now[0] < end:
        now[0] += every
        if budget.allows():
            with budget.spending():
                now[0] += cost
    return budget.spent


@pytest.mark.parametrize("cost", [0.01, 0.05, 0.15])
@pytest.mark.parametrize(("seconds", "share"), [(44, 0.01), (600, 0.001), (3600, 0.001), (36_000, 0.001)])
def test_pages_and_pictures_take_their_share_of_a_run_at_most(cost, seconds, share):
    total = 0
    for settings, each in ((showing.PAGE, cost), ((*showing.PICTURES, showing.FIRST_PICTURES), 5 * cost)):
        now = [100.0]
        total += spent(showing.Budget(*settings, clock=lambda now=now: now[0]), now, each, seconds, 2)
    assert 0 < total < share * seconds


def test_something_that_has_become_slow_waits_for_its_share():
    now = [0.0]
    budget = showing.Budget(0, 0.01, clock=lambda: now[0])
    assert budget.allows()
    with budget.spending():
        now[0] += 2
    now[0] = 399
    assert not budget.allows()
    now[0] = 401  # 2 seconds spent, and 2 to come
    assert budget.allows()


def test_a_page_that_fails_ends_no_run_and_is_told_of_once(tmp_path, monkeypatch):
    def broken(*args):
        raise ValueError("no page today")

    monkeypatch.setattr(page, "write", broken)
    train.train(start(tmp_path, sample_every=2, model="mlp"))
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.count("could not be made: no page today") == 1 and "finished" in log
    assert latest(tmp_path / "run").name == "step_000012.pt"


def test_pages_are_written_from_the_first_step_to_the_last(tmp_path, monkeypatch, no_pictures):
    seen = []
    monkeypatch.setattr(page, "write", lambda run_dir, now: seen.append(now))
    train.train(start(tmp_path, sample_every=4, model="mlp"))
    assert [now.step for now in seen] == [0, 4, 8, 12] and all(now.ended is None for now in seen)
    assert seen[0].seconds_left is None and seen[1].seconds_left > 0 and seen[3].seconds_left == 0


@pytest.mark.parametrize("kind", ["window", "terminal", "none"])
def test_a_browser_opens_the_page_where_there_is_one_with_a_window(tmp_path, monkeypatch, no_pictures, kind):
    import webbrowser

    opened = []

    class Window(webbrowser.BaseBrowser):
        def open(self, url, new=0, autoraise=True):
            opened.append(url)
            return True

    def get():
        if kind == "none":
            raise webbrowser.Error("none")
        return Window() if kind == "window" else webbrowser.GenericBrowser("false")

    monkeypatch.setattr(webbrowser, "get", get)
    train.train(start(tmp_path, total_steps=1, model="mlp", open=True))
    assert opened == [(tmp_path / "run" / "report.html").as_uri()] * (kind == "window")
    told = "no browser could be opened; open " in (tmp_path / "run" / "log.txt").read_text()
    assert told == (kind != "window")
