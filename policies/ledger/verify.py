"""Does the money add up? Each shard is read in one step and compared with its journal.

What must hold: per account available + held + spent = granted, none negative; held, the count of
open holds and each key's sums equal what its open holds and its journal lines say; per shard the
running totals equal the sums; the expiry index and the hold records name the same ids; the
journal's grants and charges equal granted and spent.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from policies.ledger.base import VerifyReport
from policies.ledger.calls import Calls
from policies.ledger.journal import JournalReader
from policies.ledger.shards import SHARDS, keys_of_shard

_MOST_PROBLEMS = 1_000
_GRANTS = frozenset("G")
_CHARGES = frozenset("SX")


@dataclass(frozen=True, slots=True)
class OpenHold:
    """A hold as its record has it."""

    hold_id: str
    account: str
    key: str
    amount_nanodollars: int


@dataclass(frozen=True, slots=True)
class ShardAudit:
    """One shard at one moment.

    Account fields are those of its hash; the totals are granted, held and spent.
    """

    shard: int
    granted_nanodollars: int
    held_nanodollars: int
    spent_nanodollars: int
    last_journal_id: str
    expiring: frozenset[str]
    holds: tuple[OpenHold, ...]
    accounts: dict[str, dict[str, str]]


async def audit(calls: Calls, shard: int) -> ShardAudit:
    """Reads a shard in one atomic step.

    Raises:
        LedgerUnavailable: no answer.
    """
    keys = keys_of_shard(shard)
    totals, last, expiring, holds, accounts = await calls.function(
        "tollway1_audit",
        (keys.accounts, keys.expiries, keys.holds, keys.totals, keys.journal),
        (keys.account(""),),
    )
    granted, held, spent = (int(total or 0) for total in totals)
    row = iter(value.decode() for value in holds)
    return ShardAudit(
        shard=shard,
        granted_nanodollars=granted,
        held_nanodollars=held,
        spent_nanodollars=spent,
        last_journal_id=last.decode(),
        expiring=frozenset(hold_id.decode() for hold_id in expiring),
        holds=tuple(
            OpenHold(hold_id, account, key, int(amount))
            for hold_id, account, key, amount in zip(row, row, row, row, strict=True)
        ),
        accounts={
            name.decode(): _fields(flat) for name, flat in zip(*[iter(accounts)] * 2, strict=True)
        },
    )


def _fields(flat: list[bytes]) -> dict[str, str]:
    return {
        field.decode(): value.decode() for field, value in zip(flat[::2], flat[1::2], strict=True)
    }


async def verify(calls: Calls, journal: JournalReader) -> VerifyReport:
    """Checks all shards, one after another.

    Raises:
        LedgerUnavailable: no answer.
    """
    problems: list[str] = []
    sums: Counter[str] = Counter()
    accounts = 0
    for shard in range(SHARDS):
        seen = await audit(calls, shard)
        if (
            not seen.accounts
            and not seen.holds
            and not seen.expiring
            and seen.last_journal_id == "0-0"
        ):
            problems += _totals(seen)
            continue
        expected = await _expected(seen, journal)
        problems += _totals(seen)
        problems += _index(seen)
        for account in sorted(expected.keys() - seen.accounts.keys()):
            problems.append(f"account {account!r}: it has money but is not among the accounts")
        for account, fields in seen.accounts.items():
            problems += _account(account, fields, expected.get(account, Counter()))
        accounts += len(seen.accounts)
        for fields in seen.accounts.values():
            sums.update(
                {name: _int(fields, name) for name in ("granted", "avail", "held", "spent")}
            )
    return VerifyReport(
        accounts,
        sums["granted"],
        sums["avail"],
        sums["held"],
        sums["spent"],
        tuple(problems[:_MOST_PROBLEMS]),
    )


def _int(fields: dict[str, str], name: str) -> int:
    return int(fields.get(name, "0"))


def _totals(seen: ShardAudit) -> Iterator[str]:
    for name, total in (
        ("granted", seen.granted_nanodollars),
        ("held", seen.held_nanodollars),
        ("spent", seen.spent_nanodollars),
    ):
        of_accounts = sum(_int(fields, name) for fields in seen.accounts.values())
        if total != of_accounts:
            yield f"shard {seen.shard}: its total {name} is {total}, its accounts' {of_accounts}"


def _index(seen: ShardAudit) -> Iterator[str]:
    recorded = {hold.hold_id for hold in seen.holds}
    for hold_id in sorted(seen.expiring - recorded):
        yield f"shard {seen.shard}: the hold {hold_id!r} has an expiry but no record"
    for hold_id in sorted(recorded - seen.expiring):
        yield f"shard {seen.shard}: the hold {hold_id!r} has a record but no expiry"
    for hold in seen.holds:
        if hold.account not in seen.accounts:
            of = f"the unknown account {hold.account!r}"
            yield f"shard {seen.shard}: the hold {hold.hold_id!r} is of {of}"


async def _expected(seen: ShardAudit, journal: JournalReader) -> dict[str, Counter[str]]:
    """What each account's fields must be, from journal and open holds."""
    expected: defaultdict[str, Counter[str]] = defaultdict(Counter)
    async for line in journal.replay(seen.shard, seen.last_journal_id):
        if line.type in _GRANTS:
            expected[line.account]["granted"] += line.charge_nanodollars
        elif line.type in _CHARGES:
            expected[line.account]["spent"] += line.charge_nanodollars
            expected[line.account][f"l:{line.key}"] += line.charge_nanodollars
    for hold in seen.holds:
        fields = expected[hold.account]
        fields["held"] += hold.amount_nanodollars
        fields[f"l:{hold.key}"] += hold.amount_nanodollars
        fields["c"] += 1
        fields[f"c:{hold.key}"] += 1
    return expected


def _account(account: str, fields: dict[str, str], expected: Counter[str]) -> Iterator[str]:
    counted = {name for name in fields if name.startswith(("l:", "c:"))} | set(expected)
    for name in sorted(counted | {"granted", "spent", "held", "c"}):
        if _int(fields, name) != expected[name]:
            yield (
                f"account {account!r}: {name} is {_int(fields, name)}, "
                f"the journal and the open holds say {expected[name]}"
            )
    avail, held, spent, granted = (
        _int(fields, name) for name in ("avail", "held", "spent", "granted")
    )
    if avail + held + spent != granted:
        parts = f"available {avail} + held {held} + spent {spent}"
        yield f"account {account!r}: {parts} is not granted {granted}"
    if avail < 0:
        yield f"account {account!r}: available is {avail}, below zero"
