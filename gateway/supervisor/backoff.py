"""How long to wait before a dead child is started again; pure arithmetic."""

from __future__ import annotations

from collections.abc import Callable

from gateway.supervisor.settings import SupervisorSettings


class Backoff:
    """Doubling delays for one child, forgotten after a healthy life."""

    def __init__(self, settings: SupervisorSettings, chance: Callable[[], float]) -> None:
        """Starts at the first delay.

        Args:
            settings: The delays.
            chance: A number in [0, 1); takes up to the jitter fraction off each delay.
        """
        self._settings = settings
        self._chance = chance
        self._next_delay_s = settings.restart_first_delay_s
        self._quick_deaths = 0

    @property
    def failing(self) -> bool:
        """True from enough failed starts in a row to the end of the next longer life."""
        return self._quick_deaths >= self._settings.quick_deaths_before_error

    @property
    def quick_deaths(self) -> int:
        """Failed starts in a row."""
        return self._quick_deaths

    def delay_after(self, lived_s: float) -> float:
        """Records a death and returns the seconds to wait before the restart.

        Args:
            lived_s: How long the child lived, in seconds.
        """
        settings = self._settings
        if lived_s >= settings.healthy_after_s:
            self._next_delay_s = settings.restart_first_delay_s
        self._quick_deaths = self._quick_deaths + 1 if lived_s < settings.quick_death_s else 0
        delay_s = self._next_delay_s
        self._next_delay_s = min(2 * delay_s, settings.restart_max_delay_s)
        return delay_s * (1.0 - settings.restart_jitter_fraction * self._chance())
