"""When a worker takes no more: its event loop is late for too long, or it is full."""

from __future__ import annotations

from gateway.clock import TICK_S
from gateway.errors import Overloaded
from gateway.settings import ServerSettings


class Overload:
    """Judges a worker by how late its ticks are, and by how many requests it has.

    A tick that is more than ``shed_lag_ms`` late begins an overload; from ``shed_lag_s`` on it
    sheds. It is over once every tick for ``shed_lag_s`` was at most half of ``shed_lag_ms`` late:
    less load is what makes the loop prompt again, so that the first good tick proves nothing. A
    tick between the two bounds changes nothing, but begins the wait for the end anew.
    """

    def __init__(self, settings: ServerSettings, now: float) -> None:
        """Expect the first tick ``TICK_S`` after ``now``, in monotonic seconds."""
        self._settings = settings
        self._last = now
        self._late_since: float | None = None
        self._calm_since: float | None = None
        self.shedding = False

    def tick(self, now: float) -> float:
        """Take a tick that should have come ``TICK_S`` after the last; return its lag, seconds.

        A blocked loop delivers one tick where there should have been many: the whole lag of it
        counts as time in which the loop was late.
        """
        lag_s = max(0.0, now - self._last - TICK_S)
        self._last = now
        bound_s = self._settings.shed_lag_ms / 1000
        if lag_s > bound_s:
            self._calm_since = None
            if self._late_since is None:
                self._late_since = now - lag_s
            self.shedding |= now - self._late_since >= self._settings.shed_lag_s
        elif not self.shedding:
            self._late_since = None
        elif lag_s > bound_s / 2:
            self._calm_since = None
        else:
            self._calm(now)
        return lag_s

    def check(self, open_streams: int) -> None:
        """Refuse one more request when there is no room for it.

        Raises:
            Overloaded: the loop is late, or ``max_streams`` are open.
        """
        if self.shedding:
            message = "this worker is too busy; try again in a moment"
            raise Overloaded(message, self._settings.shed_lag_s)
        if open_streams >= self._settings.max_streams:
            raise Overloaded("this worker is full; try again in a moment")

    def _calm(self, now: float) -> None:
        if self._calm_since is None:
            self._calm_since = now
        if now - self._calm_since >= self._settings.shed_lag_s:
            self.shedding, self._late_since, self._calm_since = False, None, None
