"""Random histories, with repeats and reordering: a small model must agree at every step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from policies.ledger.base import (
    Balance,
    Checkpoint,
    HoldRequest,
    HoldState,
    IdConflict,
    LedgerSettings,
    LimitExceeded,
    Limits,
    PaymentRequired,
    ReservationFinished,
    SettleRequest,
)
from policies.ledger.client import Ledger
from policies.ledger.connect import connect
from policies.ledger.sweeper import Sweeper
from tests.valkey_server import ValkeyServer

ACCOUNTS = ("red", "green", "blue")
CONCURRENCY = 3
KEY_LIMIT = 900
T = TypeVar("T")


@dataclass
class ModelHold:
    """An open hold of the model."""

    amount: int
    due: bool
    checkpoint: int = 0


@dataclass
class ModelAccount:
    """An account of the model; spent and held by its one limited key are kept apart."""

    avail: int = 0
    spent: int = 0
    granted: int = 0
    known: bool = False
    holds: dict[str, ModelHold] = field(default_factory=dict)
    ended: dict[str, tuple[HoldState, int]] = field(default_factory=dict)

    @property
    def held(self) -> int:
        """Money in open holds."""
        return sum(one.amount for one in self.holds.values())

    def end(self, hold_id: str, state: HoldState, charge: int) -> None:
        """Closes a hold."""
        one = self.holds.pop(hold_id)
        self.avail += one.amount - charge
        self.spent += charge
        self.ended[hold_id] = (state, charge)


class Histories(RuleBasedStateMachine):
    """Each rule runs one operation up to three times; the model runs it once."""

    server: ValkeyServer

    def __init__(self) -> None:
        """An empty ledger and an empty model."""
        super().__init__()
        self.runner = asyncio.Runner()
        self.redis = connect(self.server.url)
        self.ledger = Ledger(self.redis)
        self.hasty = Ledger(self.redis, LedgerSettings(hold_ttl_ms=0))
        self.accounts = {name: ModelAccount() for name in ACCOUNTS}
        self.grants: dict[str, tuple[str, int]] = {}
        self.run(self.redis.flushall())
        self.run(self.ledger.start())

    def run(self, what: Awaitable[T]) -> T:
        """Runs one call to its end."""

        async def call() -> T:
            return await what

        return self.runner.run(call())

    def teardown(self) -> None:
        """The journal must explain what is there."""
        report = self.run(self.ledger.verify())
        assert report.ok, report.problems
        for ledger in (self.ledger, self.hasty):
            self.run(ledger.aclose())
        self.run(self.redis.aclose())
        self.runner.close()

    numbers = st.integers(0, 8)
    times = st.integers(1, 3)
    amounts = st.one_of(st.integers(0, 400), st.just(0), st.just(1_000_000))

    @staticmethod
    def place(number: int) -> tuple[str, str]:
        """The id and the account of a number; an id keeps its account."""
        return f"id{number}", ACCOUNTS[number % len(ACCOUNTS)]

    @rule(number=numbers, name=st.sampled_from(ACCOUNTS), amount=st.integers(1, 800), times=times)
    def grant(self, number: int, name: str, amount: int, times: int) -> None:
        """A repeated id must mean the same."""
        known = self.grants.setdefault(f"g{number}", (name, amount))
        account = self.accounts[name]
        for attempt in range(times):
            try:
                granted = self.run(self.ledger.grant(f"g{number}", name, amount))
            except IdConflict:
                assert known != (name, amount)
                continue
            assert known == (name, amount)
            if attempt == 0 and not granted.duplicate:
                account.avail += amount
                account.granted += amount
                account.known = True
            assert granted.available_nanodollars == account.avail

    @rule(number=numbers, amount=amounts, times=times, due=st.booleans())
    def reserve(self, number: int, amount: int, times: int, due: bool) -> None:
        """Money first, then the key, then the limit; a finished id never again."""
        hold_id, name = self.place(number)
        account = self.accounts[name]
        limits = Limits(concurrency=CONCURRENCY).of_account()
        request = HoldRequest(hold_id, name, "k", amount, 0, KEY_LIMIT, limits)
        ledger = self.hasty if due else self.ledger
        for _ in range(times):
            expected: type[Exception] | None = None
            if hold_id in account.ended:
                expected = ReservationFinished
            elif hold_id not in account.holds:
                if amount > account.avail or account.spent + account.held + amount > KEY_LIMIT:
                    expected = PaymentRequired
                elif len(account.holds) >= CONCURRENCY:
                    expected = LimitExceeded
            if expected is not None:
                with pytest.raises(expected):
                    self.run(ledger.reserve(request))
                continue
            reservation = self.run(ledger.reserve(request))
            if hold_id not in account.holds:
                account.known = True
                account.holds[hold_id] = ModelHold(amount, due)
                account.avail -= amount
            assert reservation.amount_nanodollars == account.holds[hold_id].amount
            assert reservation.available_nanodollars == account.avail

    @rule(number=numbers, charge=amounts, times=times)
    def settle(self, number: int, charge: int, times: int) -> None:
        """The first end stands."""
        hold_id, name = self.place(number)
        account = self.accounts[name]
        for _ in range(times):
            if hold_id in account.holds:
                account.end(hold_id, HoldState.SETTLED, min(charge, account.holds[hold_id].amount))
            settled = self.run(self.ledger.settle(SettleRequest(hold_id, name, charge)))
            unknown = (HoldState.UNKNOWN, 0)
            expected = account.ended.get(hold_id, unknown)
            assert (settled.state, settled.charge_nanodollars) == expected

    @rule(number=numbers, times=times)
    def void(self, number: int, times: int) -> None:
        """Also an id that was never held is finished by it."""
        hold_id, name = self.place(number)
        account = self.accounts[name]
        for _ in range(times):
            if hold_id in account.holds:
                account.end(hold_id, HoldState.VOIDED, 0)
            account.ended.setdefault(hold_id, (HoldState.VOIDED, 0))
            voided = self.run(self.ledger.void(hold_id, name))
            assert (voided.state, voided.charge_nanodollars) == account.ended[hold_id]

    @rule(numbers=st.lists(numbers, max_size=4), charge=amounts, due=st.booleans())
    def progress(self, numbers: list[int], charge: int, due: bool) -> None:
        """Renews what is open, names what is not."""
        ledger = self.hasty if due else self.ledger
        places = [self.place(number) for number in numbers]
        lost = self.run(ledger.progress([Checkpoint(*place, charge) for place in places]))
        gone = []
        for hold_id, name in places:
            one = self.accounts[name].holds.get(hold_id)
            if one is None:
                gone.append(hold_id)
            else:
                one.due, one.checkpoint = due, min(charge, one.amount)
        assert sorted(lost) == sorted(gone)

    @rule()
    def sweep(self) -> None:
        """Captures exactly what is due."""
        swept = self.run(Sweeper(self.ledger).run_once())
        captured = released = 0
        for account in self.accounts.values():
            for hold_id, one in list(account.holds.items()):
                if one.due:
                    account.end(hold_id, HoldState.CAPTURED, one.checkpoint)
                    captured += one.checkpoint > 0
                    released += one.checkpoint == 0
        assert (swept.captured, swept.released) == (captured, released)
        assert swept.open_holds == sum(len(one.holds) for one in self.accounts.values())

    @invariant()
    def money_is_conserved_and_as_the_model_has_it(self) -> None:
        """Nothing below zero, nothing lost, every figure as a single run leaves it."""
        for name, account in self.accounts.items():
            balance = self.run(self.ledger.balance(name))
            if not account.known:
                assert balance is None
                continue
            assert balance == Balance(
                name,
                account.avail,
                account.held,
                account.spent,
                account.granted,
                len(account.holds),
            )
            assert account.avail >= 0
            assert account.avail + account.held + account.spent == account.granted


def test_random_histories_agree_with_the_model(valkey_server: ValkeyServer) -> None:
    """State equals the single-shot run whatever is repeated or comes in another order."""
    machine = type("ServedHistories", (Histories,), {"server": valkey_server})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=60,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
