"""Update a run's page, curves and animation during training, at little cost in time.

Under torchrun only rank 0 draws. Errors here do not end a run.
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

# Time that may be spent: seconds at once, and a share of the run's time. Together under 1 % of a run of 40 seconds, and
# under 0.1 % of runs of 7 minutes or more; at the end of a run everything is drawn once more.
PAGE, PICTURES = (0.3, 1 / 4000), (0.0, 1 / 1600)
FIRST_PICTURES = 1.5  # seconds that matplotlib and the first drawing take


class Budget:
    """A time budget: allows() tells whether a task may run again at its last cost."""

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
    """Draw a run's page and pictures, within budgets during training and once at the end."""

    def __init__(self, run_dir: Path, config: Config, say: Callable[[str], object], first_step: int) -> None:
        self.run_dir, self.config, self.say, self.first_step = run_dir, config, say, first_step
        self.began = time.perf_counter()
        self.page, self.pictures = Budget(*PAGE), Budget(*PICTURES, FIRST_PICTURES)
        self.begun = self.told = False

    def begin(self, step: int) -> None:
        """Write the page before the first step, and open it in the browser under --open."""
        if rank() > 0 or self.begun:
            return
        self.begun = True
        self._write_page(step)
        if self.config.open:
            self._open_page()

    def update(self, step: int) -> None:
        """Update pictures and page after new samples or scores, if the budgets allow it."""
        if not self.begun:
            return
        if self.pictures.allows():
            self._draw()
        if self.page.allows():
            self._write_page(step)

    def end(self, step: int, ended: str) -> None:
        """Draw everything once more, with how the run ended."""
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
        """Draw the curves and the animation of all steps so far."""
        config = self.config
        title = f"{config.dataset}, {config.model}, {config.loss}, D: {' + '.join(config.d_norm)}"
        with self._failing_quietly(), self.pictures.spending(), announced("drawing the curves and the animation"):
            plots.plot_curves(self.run_dir, read_stats(self.run_dir), title)
            plots.animate(self.run_dir)

    @contextlib.contextmanager
    def _failing_quietly(self) -> Iterator[None]:
        """Report the first error within it as a warning: a failed picture must not end a run or hide how it ended."""
        try:
            yield
        except Exception as error:  # of any kind: anybody may have changed the files that are drawn
            if not self.told:
                self.told = True
                with contextlib.suppress(OSError):  # if the disk is full, log.txt cannot be written either
                    self.say(f"warning     the pictures in {self.run_dir} could not be made: {error}")

    def _open_page(self) -> None:
        """Open the page in a browser, except one in the terminal that the run uses."""
        address = (self.run_dir / page.NAME).resolve().as_uri()
        with contextlib.suppress(webbrowser.Error):
            browser = webbrowser.get()
            if type(browser) is not webbrowser.GenericBrowser and browser.open(address):
                return
        self.say(f"page        no browser could be opened; open {self.run_dir / page.NAME}")
