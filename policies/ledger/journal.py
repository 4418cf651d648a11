"""Reading the journal: one stream per shard, lines in the order in which the money moved."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator
from operator import attrgetter

import msgspec

from policies.ledger.base import JournalLine, LineMeta
from policies.ledger.calls import Calls, Command
from policies.ledger.shards import SHARDS, keys_of_shard, shard_of

_START = "-"
_FOLLOW_PERIOD_S = 0.25

Entry = tuple[bytes, list[bytes]]


class JournalReader:
    """Reads lines in batches of at most `batch_lines` per shard."""

    def __init__(self, calls: Calls, batch_lines: int) -> None:
        """Reads over `calls`, which the caller closes."""
        self._calls = calls
        self._batch_lines = batch_lines

    async def tail(self, account: str | None, count: int) -> list[JournalLine]:
        """The last `count` lines, oldest first, of one account or of all.

        Raises:
            LedgerUnavailable: no answer.
        """
        shards = range(SHARDS) if account is None else (shard_of(account),)
        found: list[JournalLine] = []
        for shard in shards:
            found += await self._tail_of_shard(shard, account, count)
        found.sort(key=attrgetter("at_us"))
        return found[-count:] if count > 0 else []

    async def _tail_of_shard(
        self, shard: int, account: str | None, count: int
    ) -> list[JournalLine]:
        """The last lines of a shard, newest first; looks back until it has enough."""
        found: list[JournalLine] = []
        end = "+"
        while len(found) < count:
            size = self._batch_lines if account is not None else min(count, self._batch_lines)
            entries: list[Entry] = await self._calls.command(
                "XREVRANGE", keys_of_shard(shard).journal, end, _START, "COUNT", size
            )
            lines = (read_line(values) for _, values in entries)
            found += [line for line in lines if account is None or line.account == account]
            if len(entries) < size:
                break
            end = "(" + entries[-1][0].decode()
        return found[:count]

    async def follow(self, account: str | None) -> AsyncIterator[JournalLine]:
        """Lines written from now on, each once, in the order of each shard, without end.

        Raises:
            LedgerUnavailable: no answer.
        """
        shards = list(range(SHARDS)) if account is None else [shard_of(account)]
        journals = [keys_of_shard(shard).journal for shard in shards]
        newest = await self._calls.many(
            [("XREVRANGE", key, "+", "-", "COUNT", 1) for key in journals]
        )
        last = [entries[0][0].decode() if entries else "0-0" for entries in newest]
        while True:
            commands: list[Command] = [
                ("XRANGE", key, f"({after}", "+", "COUNT", self._batch_lines)
                for key, after in zip(journals, last, strict=True)
            ]
            batches: list[list[Entry]] = await self._calls.many(commands)
            for index, entries in enumerate(batches):
                if entries:
                    last[index] = entries[-1][0].decode()
            lines = ([read_line(values) for _, values in entries] for entries in batches if entries)
            for line in heapq.merge(*lines, key=attrgetter("at_us")):
                if account is None or line.account == account:
                    yield line
            await asyncio.sleep(_FOLLOW_PERIOD_S)

    async def replay(self, shard: int, last_id: str) -> AsyncIterator[JournalLine]:
        """Every line of a shard from the first to `last_id`, in order.

        Raises:
            LedgerUnavailable: no answer.
        """
        start = _START
        while True:
            entries: list[Entry] = await self._calls.command(
                "XRANGE", keys_of_shard(shard).journal, start, last_id, "COUNT", self._batch_lines
            )
            for _, values in entries:
                yield read_line(values)
            if len(entries) < self._batch_lines:
                return
            start = "(" + entries[-1][0].decode()


def read_line(values: list[bytes]) -> JournalLine:
    """A stream entry as a line; a `meta` that cannot be read is left empty and flagged."""
    raw = dict(zip(values[::2], values[1::2], strict=True))
    flags = tuple(raw[b"f"].decode().split()) if raw[b"f"] else ()
    try:
        meta = msgspec.json.decode(raw[b"m"] or b"{}", type=LineMeta)
    except msgspec.DecodeError:
        meta = LineMeta(flags=("unreadable_meta",))
    return JournalLine(
        type=raw[b"t"].decode(),
        id=raw[b"id"].decode(),
        account=raw[b"a"].decode(),
        key=raw[b"k"].decode(),
        charge_nanodollars=int(raw[b"c"]),
        cost_picodollars=int(raw[b"p"]),
        at_us=int(raw[b"u"]),
        model=meta.model,
        endpoint=meta.endpoint,
        tokens=meta.tokens,
        markup_bp=meta.markup_bp,
        price_version=meta.price_version,
        flags=meta.flags + flags,
    )
