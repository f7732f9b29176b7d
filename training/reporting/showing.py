"""What a run shows of itself while it trains: its page, curves and animation, for little of its time.

Under torchrun rank 0 alone draws. What fails here ends no run.
"""

import contextlib
import time
import webbrowser
from collections.abc import Callable, Iterator
from pathlib import Path

from settings.config import Config
from utils.console import announced
from utils.distributed import rank

from . import page, plots
from .logger import read_stats

# What may be spent: seconds at once, and a share of the run's time. Together under 1 % of 40 seconds, and under 0.1 %
# of 7 minutes and of all that is longer; at the end of a run all is drawn once more.
PAGE, PICTURES = (0.3, 1 / 4000), (0.0, 1 / 1600)
FIRST_PICTURES = 1.5  # seconds that matplotlib and the first drawing take


class Budget:
    """Whether there is time for something again, by what it took so far and the time that has passed."""

    def __init__(
        self, at_once: float, share: float, expected: float = 0.0, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.at_once, self.share, self.last, self.spent = at_once, share, expected, 0.0
        self.clock, self.began = clock, clock()

    def allows(self) -> bool:
        passed = self.clock() - self.began
        return self.spent + self.last <= self.at_once + self.share * passed

    @contextlib.contextmanager
    def spending(self) -> Iterator[None]:
        began = self.clock()
        try:
            yield
        finally:
            self.last = self.clock() - began
            self.spent += self.last


class Show:
    """Draws what a run shows: whenever there are new samples or scores and it costs little, and at its end."""

    def __init__(self, run_dir: Path, config: Config, say: Callable[[str], object], first_step: int) -> None:
        self.run_dir, self.config, self.say, self.first_step = run_dir, config, say, first_step
        self.began = time.perf_counter()
        self.page, self.pictures = Budget(*PAGE), Budget(*PICTURES, FIRST_PICTURES)
        self.begun = self.told = False

    def begin(self, step: int) -> None:
        """The page before the first step; in the browser where that is asked for."""
        if rank() > 0 or self.begun:
            return
        self.begun = True
        self._write_page(step)
        if self.config.open:
            self._open_page()

    def update(self, step: int) -> None:
        """After new samples or scores."""
        if not self.begun:
            return
        if self.pictures.allows():
            self._draw()
        if self.page.allows():
            self._write_page(step)

    def end(self, step: int, ended: str) -> None:
        """All of it, once more, with how the run ended."""
        if rank() > 0:
            return
        self._draw()
        self._write_page(step, ended)

    def _write_page(self, step: int, ended: str | None = None) -> None:
        done, left = step - self.first_step, self.config.total_steps - step
        seconds_left = (time.perf_counter() - self.began) / done * left if done > 0 else None
        with self._failing_quietly(), self.page.spending():
            page.write(self.run_dir, page.Now(step, seconds_left, ended))

    def _draw(self) -> None:
        """The curves and the animation of what was trained so far."""
        config = self.config
        title = f"{config.dataset}, {config.model}, {config.loss}, D: {' + '.join(config.d_norm)}"
        with self._failing_quietly(), self.pictures.spending(), announced("drawing the curves and the animation"):
            plots.plot_curves(self.run_dir, read_stats(self.run_dir), title)
            plots.animate(self.run_dir)

    @contextlib.contextmanager
    def _failing_quietly(self) -> Iterator[None]:
        """A picture that fails must not end a run, nor hide how it ended. It is told of once."""
        try:
            yield
        except Exception as error:  # whatever matplotlib, Pillow and Jinja make of files that somebody else changed
            if not self.told:
                self.told = True
                with contextlib.suppress(OSError):  # where the disk is full, log.txt cannot be written either
                    self.say(f"warning     the pictures in {self.run_dir} could not be made: {error}")

    def _open_page(self) -> None:
        """Open the page in the browser, but for one in the terminal, which would take that away from the run."""
        address = (self.run_dir / page.NAME).resolve().as_uri()
        with contextlib.suppress(webbrowser.Error):
            browser = webbrowser.get()
            if type(browser) is not webbrowser.GenericBrowser and browser.open(address):
                return
        self.say(f"page        no browser could be opened; open {self.run_dir / page.NAME}")
