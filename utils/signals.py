"""Signals: temporary handlers, and those that tell a run to stop or to save."""

import contextlib
import signal
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

from .launcher import launched

Handler = Callable[[int, FrameType | None], Any] | int | None


@contextlib.contextmanager
def handled(handlers: Mapping[int, Handler]) -> Iterator[None]:
    """Install signal handlers within the context, and restore the previous ones after it."""
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Signals:
    """The signals noted for the training loop: SIGINT, SIGTERM and SIGHUP to stop, SIGUSR1 to save.

    A second SIGINT ends the process, except under torchrun, which sends one itself. Under nohup, SIGHUP stays ignored.
    """

    NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")  # Windows has two of them
    stop = save = 0

    def noted(self) -> contextlib.AbstractContextManager[None]:
        """Return a context in which signals are noted."""
        numbers = [getattr(signal, name) for name in self.NAMES if hasattr(signal, name)]
        if "SIGHUP" in dir(signal) and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
            numbers.remove(signal.SIGHUP)
        return handled(dict.fromkeys(numbers, self._note))

    def _note(self, number: int, frame: FrameType | None) -> None:
        if signal.Signals(number).name == "SIGUSR1":
            self.save = 1
            return
        if self.stop and number == signal.SIGINT and not launched():
            raise KeyboardInterrupt
        self.stop = number
