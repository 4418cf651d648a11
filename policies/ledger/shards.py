"""Which shard an account lives in, and the names of a shard's keys.

All keys of one account carry one hash tag, so that one function may touch them together on a
cluster. There are 256 shards; the tag of shard n is chosen so that its slot falls into block n*64
to n*64+63, which spreads the shards evenly over any cluster (tags drawn blindly would clump). Slots
are CRC16 (XMODEM) modulo 16384, as the Redis cluster specification has it.
"""

from __future__ import annotations

import binascii
import functools
import itertools
import zlib

SHARDS = 256
_SLOTS = 16384
_SLOTS_PER_SHARD = _SLOTS // SHARDS


def slot_of(tag: str) -> int:
    """The cluster slot, 0 to 16383, of a hash tag."""
    return binascii.crc_hqx(tag.encode(), 0) % _SLOTS


def shard_of(account: str) -> int:
    """The shard, 0 to 255, that an account's money lives in. It never changes."""
    return zlib.crc32(account.encode()) % SHARDS


@functools.cache
def tag_of(shard: int) -> str:
    """The hash tag of a shard, without braces; the same in every process and release.

    Raises:
        ValueError: no such shard.
    """
    if not 0 <= shard < SHARDS:
        raise ValueError(f"shard {shard!r} is not in 0..{SHARDS - 1}")
    for attempt in itertools.count():
        tag = f"s{shard}.{attempt}"
        if slot_of(tag) // _SLOTS_PER_SHARD == shard:
            return tag
    raise AssertionError("unreachable: the count does not end")


class ShardKeys:
    """The names of one shard's keys. What each holds is said at the top of `functions.lua`."""

    __slots__ = (
        "accounts",
        "expiries",
        "finished",
        "grants",
        "holds",
        "journal",
        "prefix",
        "totals",
    )

    def __init__(self, shard: int) -> None:
        """Names the keys of `shard`, 0 to 255."""
        self.prefix = prefix = f"{{{tag_of(shard)}}}:"
        self.expiries = prefix + "x"
        self.holds = prefix + "h"
        self.totals = prefix + "tot"
        self.accounts = prefix + "accounts"
        self.journal = prefix + "j"
        self.grants = prefix + "gr"
        self.finished = prefix + "gl"

    def account(self, account: str) -> str:
        """The hash of one account."""
        return f"{self.prefix}a:{account}"

    def generation(self, hold_id: str) -> str:
        """The generation record of one finished id."""
        return f"{self.prefix}g:{hold_id}"


@functools.cache
def keys_of_shard(shard: int) -> ShardKeys:
    """The keys of a shard, made once."""
    return ShardKeys(shard)


def keys_of(account: str) -> ShardKeys:
    """The keys of the shard that an account lives in."""
    return keys_of_shard(shard_of(account))
