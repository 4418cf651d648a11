"""What the functions are given and what they answer, as our types."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from policies.ledger.base import (
    HoldRequest,
    HoldState,
    IdConflict,
    LedgerUnavailable,
    LimitExceeded,
    LineMeta,
    PaymentRequired,
    Reservation,
    ReservationFinished,
    Settlement,
)
from policies.ledger.shards import keys_of

_STATES: Final = {b"S": HoldState.SETTLED, b"V": HoldState.VOIDED, b"X": HoldState.CAPTURED}
_LONGEST_NAME: Final = 200


def closing_keys(account: str, hold_id: str) -> tuple[str, ...]:
    """The keys of `settle` and `void`, in their order."""
    keys = keys_of(account)
    return (
        keys.account(account),
        keys.expiries,
        keys.holds,
        keys.totals,
        keys.journal,
        keys.generation(hold_id),
        keys.finished,
    )


def encode_meta(meta: LineMeta | None) -> bytes:
    """As JSON; nothing for None."""
    return b"" if meta is None else msgspec.json.encode(meta)


def check_names(*names: str) -> None:
    """Refuses what would break keys and records.

    Raises:
        ValueError: a name is empty, too long or not printable.
    """
    for name in names:
        if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
            raise ValueError(
                f"a name is 1 to {_LONGEST_NAME} printable characters, got {name[:_LONGEST_NAME]!r}"
            )


def reservation(request: HoldRequest, reply: list[Any]) -> Reservation:
    """The answer of `reserve`, or the refusal that it means.

    Raises:
        LedgerError: as `Ledger.reserve` says.
    """
    verdict = reply[0]
    if verdict in (b"ok", b"dup"):
        return Reservation(request.hold_id, request.account, reply[1], reply[2], verdict == b"dup")
    if verdict == b"funds":
        raise PaymentRequired("credits", reply[1], request.amount_nanodollars)
    if verdict == b"key":
        raise PaymentRequired("key_limit", max(reply[1], 0), request.amount_nanodollars)
    if verdict == b"limited":
        raise LimitExceeded(reply[1].decode(), reply[2] / 1e6)
    if verdict == b"finished":
        raise ReservationFinished(request.hold_id, _STATES[reply[1]])
    if verdict == b"conflict":
        raise IdConflict(f"the reservation {request.hold_id!r} belongs to another account")
    raise LedgerUnavailable(
        f"the reserve function answered {verdict!r}, which this release does not know"
    )


def settlement(hold_id: str, reply: list[Any]) -> Settlement:
    """The answer of `settle` and `void`.

    Raises:
        IdConflict: another account holds the id.
    """
    if reply[0] == b"conflict":
        raise IdConflict(f"the reservation {hold_id!r} belongs to another account")
    if reply[0] == b"unknown":
        return Settlement(HoldState.UNKNOWN, 0, 0)
    state, duplicate, charge, available, capped = reply
    return Settlement(_STATES[state], charge, available, bool(duplicate), bool(capped))
