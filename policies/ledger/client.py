"""The ledger: a thin client of the functions in `functions.lua`, where every decision is made.

`reserve` and `settle` are one round trip each. Every operation is idempotent by its id, in any
order and any number of times. A call that was cancelled, or that ended in `LedgerUnavailable`, may
have taken effect: repeat it or void its id.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence

from redis.asyncio import Redis

from policies.ledger import generations
from policies.ledger.base import (
    LARGEST_BALANCE_NANODOLLARS,
    Balance,
    Checkpoint,
    DueHold,
    DueHolds,
    Granted,
    GrantTooLarge,
    HoldRequest,
    IdConflict,
    JournalLine,
    LedgerSettings,
    LineMeta,
    Reservation,
    Settlement,
    SettleRequest,
    VerifyReport,
)
from policies.ledger.calls import Calls, Command
from policies.ledger.connect import COMMAND_TIMEOUT_S
from policies.ledger.journal import JournalReader
from policies.ledger.replies import check_names, closing_keys, encode_meta, reservation, settlement
from policies.ledger.shards import SHARDS, keys_of, keys_of_shard, shard_of
from policies.ledger.verify import verify

_MOST_TOKENS = (
    10_000_000_000  # keeps tokens x microseconds finite in a double; no request comes near
)


class Ledger:
    """The money, limits and journal of every account.

    Belongs to one event loop; close it with `aclose`. The hot calls have a connection of their own,
    so that a long audit never delays a reservation.
    """

    def __init__(
        self,
        redis: Redis,
        settings: LedgerSettings | None = None,
        *,
        timeout_s: float = COMMAND_TIMEOUT_S,
    ) -> None:
        """Takes where Redis is from `redis`, which stays the caller's to close.

        Opens nothing yet.
        """
        self._settings = settings or LedgerSettings()
        self._calls = Calls(redis, timeout_s)
        self._background = Calls(redis, timeout_s)
        self._journal = JournalReader(self._background, self._settings.batch_lines)

    async def start(self) -> None:
        """Loads this release's functions; run it at every start.

        Raises:
            LedgerUnavailable: Redis is not there.
        """
        await self._calls.load_functions()

    async def ping(self) -> None:
        """Returns if Redis answers.

        Raises:
            LedgerUnavailable: it does not.
        """
        await self._calls.command("PING")

    async def aclose(self) -> None:
        """Closes both connections. Calls that still wait end in `LedgerUnavailable`."""
        await self._calls.aclose()
        await self._background.aclose()

    async def reserve(self, request: HoldRequest) -> Reservation:
        """Holds money and a place under each limit, all or nothing, until its end or expiry.

        The same id again returns the same grant, whatever amount is asked then.

        Raises:
            PaymentRequired: the credit or the key's limit is too small; the money is checked before
                the limits.
            LimitExceeded: a limit refuses; of several, the one that refuses longest.
            ReservationFinished: the id has been settled, voided or captured.
            IdConflict: another account uses the id.
            LedgerUnavailable: no answer.
            ValueError: a negative amount, or an unusable name.
        """
        check_names(request.hold_id, request.account, request.key)
        if request.amount_nanodollars < 0 or request.estimated_tokens < 0:
            raise ValueError(f"amounts of a hold are not negative: {request!r}")
        keys = keys_of(request.account)
        limit = request.key_limit_nanodollars
        args: list[str | bytes | int] = [
            request.hold_id,
            request.account,
            request.amount_nanodollars,
            self._settings.hold_ttl_ms * 1000,
            request.key,
            -1 if limit is None else limit,
            min(request.estimated_tokens, _MOST_TOKENS),
            encode_meta(request.meta),
        ]
        for one in request.limits:
            args += (one.field, one.kind, one.name, one.limit, one.period_us)
        reply = await self._calls.function(
            "tollway1_reserve",
            (
                keys.account(request.account),
                keys.expiries,
                keys.holds,
                keys.totals,
                keys.accounts,
                keys.generation(request.hold_id),
            ),
            tuple(args),
        )
        return reservation(request, reply)

    async def progress(self, checkpoints: Sequence[Checkpoint]) -> tuple[str, ...]:
        """Renews holds and stores how far each has come; one call per shard, in one trip.

        The last checkpoint sent counts, at most the hold. Send a hold's checkpoints one after
        another.

        Returns:
            The ids that are not open any more: they were finished, or expired and were captured.

        Raises:
            LedgerUnavailable: no answer; some may be stored.
        """
        by_shard: defaultdict[int, list[Checkpoint]] = defaultdict(list)
        for checkpoint in checkpoints:
            by_shard[shard_of(checkpoint.account)].append(checkpoint)
        commands: list[Command] = []
        for shard, batch in by_shard.items():
            keys = keys_of_shard(shard)
            args: list[str | bytes | int] = [self._settings.hold_ttl_ms * 1000]
            for one in batch:
                args += (
                    one.hold_id,
                    max(one.charge_nanodollars, 0),
                    one.cost_picodollars,
                    encode_meta(one.meta),
                )
            commands.append(("FCALL", "tollway1_progress", 2, keys.expiries, keys.holds, *args))
        replies = await self._calls.many(commands)
        ids = [one.hold_id for batch in by_shard.values() for one in batch]
        renewed = itertools.chain.from_iterable(replies)
        return tuple(hold_id for hold_id, kept in zip(ids, renewed, strict=True) if not kept)

    async def settle(self, request: SettleRequest) -> Settlement:
        """Closes a hold with a charge, at most what was held; one journal line, also for 0.

        Returns:
            How the id ended. An id that was finished before keeps its first end; one that nobody
            held is `UNKNOWN`.

        Raises:
            IdConflict: another account holds the id.
            LedgerUnavailable: no answer; settle again.
            ValueError: a negative charge, cost or token count.
        """
        check_names(request.hold_id, request.account)
        tokens = -1 if request.actual_tokens is None else min(request.actual_tokens, _MOST_TOKENS)
        if (
            min(request.charge_nanodollars, request.cost_picodollars, request.actual_tokens or 0)
            < 0
        ):
            raise ValueError(f"figures of a settlement are not negative: {request.hold_id!r}")
        reply = await self._calls.function(
            "tollway1_settle",
            closing_keys(request.account, request.hold_id),
            (
                request.hold_id,
                request.account,
                min(request.charge_nanodollars, LARGEST_BALANCE_NANODOLLARS),
                request.cost_picodollars,
                tokens,
                encode_meta(request.meta),
                request.record,
                self._settings.generation_ttl_s,
            ),
        )
        return settlement(request.hold_id, reply)

    async def void(self, hold_id: str, account: str, record: bytes = b"{}") -> Settlement:
        """Gives a hold back: money, concurrency, estimated tokens; the request stays counted.

        An id that was never held is marked too, so that a reservation still on its way is refused
        when it arrives.

        Raises:
            IdConflict: another account holds the id.
            LedgerUnavailable: no answer; void again.
        """
        check_names(hold_id, account)
        reply = await self._calls.function(
            "tollway1_void",
            closing_keys(account, hold_id),
            (hold_id, account, record, self._settings.generation_ttl_s),
        )
        return settlement(hold_id, reply)

    async def due(self) -> DueHolds:
        """Counts the open holds of all shards and finds those past their expiry, in one call.

        Raises:
            LedgerUnavailable: no answer.
        """
        shards = map(keys_of_shard, range(SHARDS))
        keys = [key for one in shards for key in (one.expiries, one.holds)]
        open_holds, flat = await self._background.function(
            "tollway1_due", keys, (self._settings.due_per_shard,)
        )
        pairs = zip(flat[::2], flat[1::2], strict=True)
        return DueHolds(
            open_holds,
            tuple(DueHold(hold_id.decode(), account.decode()) for hold_id, account in pairs),
        )

    async def expire(self, holds: Sequence[DueHold]) -> tuple[int, ...]:
        """Captures each hold that is still past its expiry at its last checkpoint, in one trip.

        With no checkpoint, or one of 0, the hold is given back and no line is written. Safe from
        many sweepers at once.

        Returns:
            For each of `holds`, in its order, the nano-dollars charged, or -1 where nothing was
            done.

        Raises:
            LedgerUnavailable: no answer; some may be done.
        """
        by_shard: defaultdict[int, list[int]] = defaultdict(list)
        for index, hold in enumerate(holds):
            by_shard[shard_of(hold.account)].append(index)
        commands: list[Command] = []
        for shard, indexes in by_shard.items():
            of = keys_of_shard(shard)
            keys = [of.expiries, of.holds, of.totals, of.journal, of.finished]
            args: list[str | bytes | int] = [self._settings.generation_ttl_s]
            for hold in (holds[index] for index in indexes):
                keys += (of.account(hold.account), of.generation(hold.hold_id))
                args += (hold.hold_id, hold.account)
            commands.append(("FCALL", "tollway1_expire", len(keys), *keys, *args))
        replies = itertools.chain.from_iterable(await self._background.many(commands))
        order = itertools.chain.from_iterable(by_shard.values())
        charges = dict(zip(order, replies, strict=True))
        return tuple(charges[index] for index in range(len(holds)))

    async def grant(
        self,
        external_id: str,
        account: str,
        amount_nanodollars: int,
        *,
        meta: LineMeta | None = None,
    ) -> Granted:
        """Adds credit once per `external_id`, whoever asks and however often; creates the account.

        The id is claimed for this account and amount before anything is added, and stays claimed.

        Raises:
            IdConflict: the id was used with another account or amount.
            GrantTooLarge: the balance would pass `LARGEST_BALANCE_NANODOLLARS`.
            LedgerUnavailable: no answer; grant again.
            ValueError: the amount is not positive, or a name is unusable.
        """
        check_names(external_id, account)
        if amount_nanodollars <= 0:
            raise ValueError(f"a grant is at least 1 nano-dollar, got {amount_nanodollars!r}")
        if amount_nanodollars > LARGEST_BALANCE_NANODOLLARS:
            raise GrantTooLarge(
                f"no account may hold more than {LARGEST_BALANCE_NANODOLLARS!r} nano-dollars"
            )
        claim = f"{amount_nanodollars}:{account}"
        claimed = await self._background.command("SET", f"grant:{external_id}", claim, "NX", "GET")
        if claimed is not None and claimed != claim.encode():
            raise IdConflict(f"the grant {external_id!r} was made with another account or amount")
        keys = keys_of(account)
        reply = await self._background.function(
            "tollway1_grant",
            (keys.account(account), keys.accounts, keys.totals, keys.journal, keys.grants),
            (
                external_id,
                account,
                amount_nanodollars,
                LARGEST_BALANCE_NANODOLLARS,
                encode_meta(meta),
            ),
        )
        if reply[0] == b"conflict":
            raise IdConflict(f"the grant {external_id!r} was made with another account or amount")
        if reply[0] == b"large":
            raise GrantTooLarge(
                f"the account {account!r} holds {reply[1]!r} nano-dollars and may hold "
                f"no more than {LARGEST_BALANCE_NANODOLLARS!r}"
            )
        return Granted(account, amount_nanodollars, reply[1], reply[0] == b"dup")

    async def create_account(self, account: str) -> None:
        """Makes an account with no credit; changes nothing if it is there.

        Raises:
            LedgerUnavailable: no answer.
            ValueError: an unusable name.
        """
        check_names(account)
        keys = keys_of(account)
        await self._background.many(
            [("SADD", keys.accounts, account), ("HSETNX", keys.account(account), "avail", 0)]
        )

    async def balance(self, account: str) -> Balance | None:
        """An account's money, or None if there is no such account.

        Raises:
            LedgerUnavailable: no answer.
        """
        fields = ("avail", "held", "spent", "granted", "c")
        reply = await self._background.command("HMGET", keys_of(account).account(account), *fields)
        if reply[0] is None:
            return None
        return Balance(account, *(int(value or 0) for value in reply))

    async def generation(self, account: str, hold_id: str) -> bytes | None:
        """The generation record of a finished id, as it was given; None if there is none.

        Raises:
            LedgerUnavailable: no answer.
        """
        return await generations.read(self._background, account, hold_id)

    async def trim_generations(self) -> int:
        """Keeps the newest `max_generations` generation records; run it once a minute.

        Returns:
            How many were forgotten.

        Raises:
            LedgerUnavailable: no answer; some may be gone.
        """
        return await generations.trim(self._background, self._settings)

    async def journal_tail(self, account: str | None = None, count: int = 100) -> list[JournalLine]:
        """The last lines, oldest first, of one account or of all.

        Raises:
            LedgerUnavailable: no answer.
        """
        return await self._journal.tail(account, count)

    def journal_follow(self, account: str | None = None) -> AsyncIterator[JournalLine]:
        """Lines as they are written, from now on, until the caller stops.

        Raises:
            LedgerUnavailable: no answer.
        """
        return self._journal.follow(account)

    async def verify(self) -> VerifyReport:
        """Checks every shard against itself and a replay of its journal; changes nothing.

        Each shard is read in one atomic step, so it may run while the ledger is used.

        Raises:
            LedgerUnavailable: no answer.
        """
        return await verify(self._background, self._journal)
