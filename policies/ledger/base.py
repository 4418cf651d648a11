"""The ledger's words: what is asked of it, what it answers, and how it refuses.

Money is integer nano-dollars; cost of upstreams is integer pico-dollars. Errors:

    LedgerError
    |-- PaymentRequired       credit, or the key's own limit, does not cover the hold (402)
    |-- LimitExceeded         a rate or concurrency limit refuses; says which, how long (429)
    |-- ReservationFinished   the id was settled, voided or captured; never held again
    |-- IdConflict            the id was used before for something else
    |-- GrantTooLarge         the balance would pass what the ledger counts exactly
    `-- LedgerUnavailable     Redis is away, loading, read-only, full or late (503)

A call that ended in `LedgerUnavailable` may or may not have taken effect. Every operation is
idempotent by its id, so the answer is to repeat it, or to void the id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Literal

import msgspec

MINUTE_US: Final = 60_000_000
NANODOLLARS: Final = 1_000_000_000
LARGEST_BALANCE_NANODOLLARS: Final = 4_000_000 * NANODOLLARS
"""Most that an account may hold: in a function numbers are doubles, exact below 2**53 ($9 M)."""

Source = Literal["credits", "key_limit"]


class LedgerError(Exception):
    """Whatever the ledger refuses or cannot do."""


class PaymentRequired(LedgerError):
    """The hold does not fit what is left. Nothing was held.

    Attributes: `source` says what ran out, the account's credits or the key's own limit;
        `available_nanodollars` what is left of it; `required_nanodollars` what the hold asked for;
        `shortfall_nanodollars` the difference.
    """

    def __init__(
        self, source: Source, available_nanodollars: int, required_nanodollars: int
    ) -> None:
        """Keeps the figures for the reply."""
        self.source: Source = source
        self.available_nanodollars = available_nanodollars
        self.required_nanodollars = required_nanodollars
        self.shortfall_nanodollars = required_nanodollars - available_nanodollars
        what = "the account's credits" if source == "credits" else "the key's spending limit"
        super().__init__(
            f"the request needs {required_nanodollars!r} nano-dollars held, but {what} "
            f"has {available_nanodollars!r} left: {self.shortfall_nanodollars!r} short"
        )


class LimitExceeded(LedgerError):
    """A limit refuses the request now.

    Nothing was held. `retry_after_s` is when the same request would pass.
    """

    def __init__(self, name: str, retry_after_s: float) -> None:
        """Names the limit (`key.rpm`, `account.concurrency`) and the wait in seconds."""
        self.name = name
        self.retry_after_s = retry_after_s
        super().__init__(f"the limit {name!r} is used up; try again in {retry_after_s:.3f} s")


class ReservationFinished(LedgerError):
    """The id was finished before (`state`), so it cannot be held again. Take a new id."""

    def __init__(self, hold_id: str, state: HoldState) -> None:
        """Names the id and how it ended."""
        self.hold_id = hold_id
        self.state = state
        super().__init__(f"the reservation {hold_id!r} is already {state.value}; take a new id")


class IdConflict(LedgerError):
    """An id came again with another account or another amount. Nothing was changed."""


class GrantTooLarge(LedgerError):
    """The grant would lift the balance above `LARGEST_BALANCE_NANODOLLARS`. Nothing was granted."""


class LedgerUnavailable(LedgerError):
    """Redis did not answer, or not in time, or refused to work.

    The call may or may not have taken effect.
    """


class HoldState(StrEnum):
    """How a reservation ended."""

    SETTLED = "settled"
    VOIDED = "voided"
    CAPTURED = "captured"
    UNKNOWN = "unknown"


class LimitKind(StrEnum):
    """What a limit counts."""

    REQUESTS = "req"
    TOKENS = "tok"
    CONCURRENCY = "conc"


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit that a reservation must pass.

    `field` is where its state lies in the account's hash; `name` is what a refusal calls it.
    `limit` is a count per `period_us` microseconds (requests, tokens), or at once (concurrency).
    Rates are GCRA with a burst of the whole limit: an unused limit may be spent at once, then it
    refills evenly.
    """

    field: str
    kind: LimitKind
    name: str
    limit: int
    period_us: int = MINUTE_US

    def __post_init__(self) -> None:
        """Refuses what the functions cannot count.

        Raises:
            ValueError: the limit or the period is not at least 1.
        """
        if self.limit < 1 or self.period_us < 1:
            raise ValueError(
                f"the limit {self.name!r} must be at least 1 per at least 1 us, got {self!r}"
            )


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one account or key; None is no limit."""

    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None

    def of_key(self, key: str) -> tuple[Limit, ...]:
        """As dimensions of a key: `key.rpm`, `key.tpm`, `key.concurrency`."""
        return self._dimensions("key", f"t:k:{key}", f"c:{key}")

    def of_account(self) -> tuple[Limit, ...]:
        """As dimensions of the account: `account.rpm`, `account.tpm`, `account.concurrency`."""
        return self._dimensions("account", "t:a", "c")

    def _dimensions(self, scope: str, prefix: str, open_field: str) -> tuple[Limit, ...]:
        found = []
        if self.rpm is not None:
            found.append(Limit(f"{prefix}:rpm", LimitKind.REQUESTS, f"{scope}.rpm", self.rpm))
        if self.tpm is not None:
            found.append(Limit(f"{prefix}:tpm", LimitKind.TOKENS, f"{scope}.tpm", self.tpm))
        if self.concurrency is not None:
            found.append(
                Limit(open_field, LimitKind.CONCURRENCY, f"{scope}.concurrency", self.concurrency)
            )
        return tuple(found)


class LineMeta(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a journal line says beside the money.

    Tokens are by kind: prompt, completion, cached, ...
    """

    model: str = ""
    endpoint: str = ""
    tokens: Mapping[str, int] = {}
    markup_bp: int = 0
    price_version: str = ""
    flags: tuple[str, ...] = ()


class HoldRequest(msgspec.Struct, frozen=True):
    """What `reserve` is asked for: some credit and a place under each limit, all or nothing.

    `hold_id` is the caller's and names the reservation for ever. `key_limit_nanodollars` bounds
    what the key may have spent and held together. `estimated_tokens` is corrected when the hold is
    settled or given back.
    """

    hold_id: str
    account: str
    key: str
    amount_nanodollars: int
    estimated_tokens: int = 0
    key_limit_nanodollars: int | None = None
    limits: tuple[Limit, ...] = ()
    meta: LineMeta = LineMeta()


class Reservation(msgspec.Struct, frozen=True):
    """An open hold.

    `available_nanodollars` is what was left beside it; a `duplicate` is the same grant again.
    """

    hold_id: str
    account: str
    amount_nanodollars: int
    available_nanodollars: int
    duplicate: bool


class Checkpoint(msgspec.Struct, frozen=True):
    """How far an open hold has come: what it would be charged if its holder died now."""

    hold_id: str
    account: str
    charge_nanodollars: int
    cost_picodollars: int = 0
    meta: LineMeta | None = None


class SettleRequest(msgspec.Struct, frozen=True):
    """The end of a hold that is charged.

    `actual_tokens` None: the estimate stands. `record` is the generation record.
    """

    hold_id: str
    account: str
    charge_nanodollars: int
    cost_picodollars: int = 0
    actual_tokens: int | None = None
    meta: LineMeta | None = None
    record: bytes = b"{}"


class Settlement(msgspec.Struct, frozen=True):
    """How an id ended, the same however often it is asked.

    `charge_nanodollars` is what was taken; `capped` says that more was asked than held. `duplicate`
    says that this call changed nothing. Settling an id that nobody holds is `UNKNOWN`: the caller
    keeps the charge for later.
    """

    state: HoldState
    charge_nanodollars: int
    available_nanodollars: int
    duplicate: bool = False
    capped: bool = False


@dataclass(frozen=True, slots=True)
class DueHold:
    """A hold past its expiry."""

    hold_id: str
    account: str


@dataclass(frozen=True, slots=True)
class DueHolds:
    """How many holds are open, and those past their expiry (at most so many per shard)."""

    open_holds: int
    due: tuple[DueHold, ...]


@dataclass(frozen=True, slots=True)
class Granted:
    """A grant that is in the ledger; a `duplicate` was there before."""

    account: str
    amount_nanodollars: int
    available_nanodollars: int
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Balance:
    """An account's money: available + held + spent = granted."""

    account: str
    available_nanodollars: int
    held_nanodollars: int
    spent_nanodollars: int
    granted_nanodollars: int
    open_holds: int

    def as_dict(self) -> dict[str, Any]:
        """As `credits show` prints it."""
        return {
            "account": self.account,
            "available_nanodollars": self.available_nanodollars,
            "held_nanodollars": self.held_nanodollars,
            "spent_nanodollars": self.spent_nanodollars,
        }


@dataclass(frozen=True, slots=True)
class JournalLine:
    """One movement of money: G grant, S settle, X captured on expiry (H L F A W come later)."""

    type: str
    id: str
    account: str
    key: str
    charge_nanodollars: int
    cost_picodollars: int
    at_us: int
    model: str
    endpoint: str
    tokens: Mapping[str, int]
    markup_bp: int
    price_version: str
    flags: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """As `journal tail` prints it."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a check of the whole ledger found.

    Sums are over all accounts; each problem is a sentence.
    """

    accounts: int
    granted_nanodollars: int
    available_nanodollars: int
    held_nanodollars: int
    spent_nanodollars: int
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """As `ledger verify` prints it."""
        return {
            "ok": self.ok,
            "accounts": self.accounts,
            "granted_nanodollars": self.granted_nanodollars,
            "available_nanodollars": self.available_nanodollars,
            "held_nanodollars": self.held_nanodollars,
            "spent_nanodollars": self.spent_nanodollars,
            "problems": list(self.problems),
        }


@dataclass(frozen=True, slots=True)
class LedgerSettings:
    """Lengths and bounds of the ledger, so that tests can shorten them."""

    hold_ttl_ms: int = 60_000
    generation_ttl_s: int = 30 * 86_400
    max_generations: int = 1_000_000
    due_per_shard: int = 64
    batch_lines: int = 1_000
