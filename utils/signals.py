"""Signals to a run: to stop, and to save."""

import signal
from types import FrameType

from .launcher import launched


class Signals:
    """Within it, signals are noted for the loop: SIGINT, SIGTERM and SIGHUP to stop, SIGUSR1 to save.

    A second SIGINT ends the process, but not under torchrun, which sends one of its own. nohup's SIGHUP stays ignored.
    """

    stop = save = 0

    def __enter__(self) -> "Signals":
        names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")  # Windows has two of them
        numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
        if "SIGHUP" in dir(signal) and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
            numbers.remove(signal.SIGHUP)
        self._before = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if signal.Signals(number).name == "SIGUSR1":
            self.save = 1
            return
        if self.stop and number == signal.SIGINT and not launched():
            raise KeyboardInterrupt
        self.stop = number

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
