"""Ends the holds whose holder has died: each is captured at its last checkpoint, or given back."""

from __future__ import annotations

from dataclasses import dataclass

from policies.ledger.base import DueHold
from policies.ledger.client import Ledger

_MOST_ROUNDS = 64


@dataclass(frozen=True, slots=True)
class Sweep:
    """What one sweep did. `open_holds` is how many are open after it, as far as it saw."""

    open_holds: int
    captured: int
    released: int
    captured_nanodollars: int


class Sweeper:
    """Sweeps when told to; whoever calls owns the period (1 s) and the task.

    Several may sweep at once.
    """

    def __init__(self, ledger: Ledger) -> None:
        """Sweeps `ledger`, which stays the caller's."""
        self._ledger = ledger

    async def run_once(self) -> Sweep:
        """Ends every hold that is due now, in at most 64 rounds of `due_per_shard` a shard.

        Raises:
            LedgerUnavailable: no answer; the next sweep goes on.
        """
        captured = released = nanodollars = 0
        found = await self._ledger.due()
        for _ in range(_MOST_ROUNDS):
            due: list[DueHold] = [
                hold for hold in found.due if hold.account
            ]  # none: a stray, for `ledger verify`
            if not due:
                break
            charges = await self._ledger.expire(due)
            captured += sum(charge > 0 for charge in charges)
            released += sum(charge == 0 for charge in charges)
            nanodollars += sum(charge for charge in charges if charge > 0)
            found = await self._ledger.due()
        return Sweep(found.open_holds, captured, released, nanodollars)
