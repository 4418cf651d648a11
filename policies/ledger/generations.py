"""Generation records: one per finished id, read by id, kept for a time and up to a number.

The record of an id is also what marks it as finished; when it is forgotten, the id is. Its first
line is the ledger's (how the id ended, for duplicates and for the account check), the rest is the
JSON that the caller gave.
"""

from __future__ import annotations

from policies.ledger.base import LedgerSettings
from policies.ledger.calls import Calls, Command
from policies.ledger.shards import SHARDS, keys_of, keys_of_shard

_WINDOW = 1_000
_MOST_ROUNDS = 1_000
_NO_CUTOFF_US = 0


async def read(calls: Calls, account: str, hold_id: str) -> bytes | None:
    """The JSON of a finished id of that account, or None.

    Raises:
        LedgerUnavailable: no answer.
    """
    found: bytes | None = await calls.command("GET", keys_of(account).generation(hold_id))
    if found is None:
        return None
    header, _, record = found.partition(b"\n")
    return record if header.split(b" ", 4)[4] == account.encode() else None


async def trim(calls: Calls, settings: LedgerSettings) -> int:
    """Removes the oldest records beyond the newest `max_generations`, and expired names.

    Bounded: at most `_MOST_ROUNDS` rounds of at most `_WINDOW` records per shard. Safe from many
        callers at once, who may then together stop short of the number; the next call goes on.

    Raises:
        LedgerUnavailable: no answer; some may be removed.
    """
    removed = await _trim_to(calls, settings, _NO_CUTOFF_US)
    for _ in range(_MOST_ROUNDS):
        lengths = await calls.many(
            [("LLEN", keys_of_shard(shard).finished) for shard in range(SHARDS)]
        )
        excess = sum(lengths) - settings.max_generations
        if excess <= 0:
            break
        cutoff_us = await _cutoff_us(calls, lengths, excess)
        newly_removed = await _trim_to(calls, settings, cutoff_us)
        if not newly_removed:
            break  # someone else was faster
        removed += newly_removed
    return removed


async def _cutoff_us(calls: Calls, lengths: list[int], excess: int) -> int:
    """The time up to which at most `excess` of the oldest records were made."""
    shards = [shard for shard, length in enumerate(lengths) if length]
    window = min(excess, _WINDOW)
    tails = await calls.many(
        [("LRANGE", keys_of_shard(shard).finished, -window, -1) for shard in shards]
    )
    times = []
    # A shard's records past its window are newer than this; nothing newer may be judged yet.
    horizon_us = None
    for shard, tail in zip(shards, tails, strict=True):
        made = [int(entry.partition(b":")[0]) for entry in tail]
        times += made
        if made and lengths[shard] > window:
            horizon_us = made[0] if horizon_us is None else min(horizon_us, made[0])
    cutoff_us = sorted(times)[min(excess, len(times)) - 1] if times else _NO_CUTOFF_US
    return cutoff_us if horizon_us is None else min(cutoff_us, horizon_us)


async def _trim_to(calls: Calls, settings: LedgerSettings, cutoff_us: int) -> int:
    commands: list[Command] = []
    for shard in range(SHARDS):
        keys = keys_of_shard(shard)
        ttl_us = settings.generation_ttl_s * 1_000_000
        prefix = keys.generation("")
        commands.append(
            ("FCALL", "tollway1_trim", 1, keys.finished, prefix, cutoff_us, ttl_us, _WINDOW)
        )
    removed: list[int] = await calls.many(commands)
    return sum(removed)
