"""Who is asking: an API key from the Authorization header becomes a caller.

Keys are looked up by their public id, verified by digest, and remembered for a few seconds,
so that a known key costs no round trip and a revoked one stops working soon.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.background import Background
from gateway.clock import Times
from gateway.errors import Unauthorized
from gateway.settings import AccountSettings
from policies import pricing
from policies.ledger.base import LedgerUnavailable, Limit, Limits
from policies.ledger.keys import KeyRecord, KeyStore, parse_key

MAX_REMEMBERED = 100_000
_NO_ACCOUNT = AccountSettings()


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated key with what applies to it."""

    account: str
    key_id: str
    limits: tuple[Limit, ...]
    key_limit_nanodollars: int | None = None
    markup_bp: int | None = None
    """Set where the key or its account has a markup of its own."""


@dataclass(slots=True)
class _Known:
    record: KeyRecord | None
    caller: Caller | None
    at: float
    refreshing: bool = False
    header: str = field(default="", repr=False)
    """The last header that was verified: the same again needs no second look."""


class Authenticator:
    """Turns Authorization headers into callers."""

    def __init__(
        self,
        store: KeyStore,
        accounts: Mapping[str, AccountSettings],
        background: Background,
        *,
        ttl_s: float,
        times: Times,
    ) -> None:
        """``ttl_s`` bounds how long a revoked key may still be used."""
        self._store = store
        self._accounts = accounts
        self._background = background
        self._ttl_s = ttl_s
        self._times = times
        self._known: OrderedDict[str, _Known] = OrderedDict()

    async def authenticate(self, header: str | None) -> Caller:
        """Return the caller of an Authorization header's value.

        Raises:
            Unauthorized: no bearer key, or one that is unknown, revoked or expired.
            LedgerUnavailable: the key has to be looked up and Redis is away.
        """
        if not header:
            raise Unauthorized("no API key; send the header 'Authorization: Bearer <key>'")
        if (caller := await self._again(header)) is not None:
            return caller
        scheme, _, text = header.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized("the Authorization header must be 'Bearer <key>'")
        parsed = parse_key(text.strip())
        if parsed is None:
            raise Unauthorized("this is no API key of this gateway; look for a typing error")
        known = await self._lookup(parsed.key_id)
        record, caller = known.record, known.caller
        if record is None or caller is None or not self._store.verify(record, parsed.secret):
            raise Unauthorized("this API key is not known here")
        known.header = header
        return self._active(record, caller)

    async def _again(self, header: str) -> Caller | None:
        """Return the caller of a header that was verified a moment ago."""
        key_id = header.split("_", 2)[1:2]
        known = self._known.get(key_id[0]) if key_id else None
        if known is None or not hmac.compare_digest(header.encode(), known.header.encode()):
            return None
        fresh = await self._lookup(key_id[0])
        if fresh is not known or known.record is None or known.caller is None:
            return None
        return self._active(known.record, known.caller)

    def _active(self, record: KeyRecord, caller: Caller) -> Caller:
        if not record.is_active(self._times.wall_us()):
            what = "was revoked" if record.disabled else "has expired"
            raise Unauthorized(f"this API key {what}")
        return caller

    async def _lookup(self, key_id: str) -> _Known:
        known = self._known.get(key_id)
        if known is None:
            return await self._fetch(key_id)
        age = self._times.now() - known.at
        if age >= self._ttl_s:
            return await self._fetch(key_id)
        if age >= self._ttl_s / 2 and not known.refreshing:
            known.refreshing = True
            self._background.spawn(self._refresh(key_id, known), name="refresh key")
        return known

    async def _refresh(self, key_id: str, known: _Known) -> None:
        try:
            await self._fetch(key_id)
        except LedgerUnavailable:
            return  # the old answer stands until it is too old; then the caller is told
        finally:
            known.refreshing = False

    async def _fetch(self, key_id: str) -> _Known:
        at = self._times.now()
        record = await self._store.get(key_id)
        known = _Known(record, None if record is None else self._caller(record), at)
        self._known[key_id] = known
        self._known.move_to_end(key_id)
        while len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)
        return known

    def _caller(self, record: KeyRecord) -> Caller:
        account = self._accounts.get(record.account, _NO_ACCOUNT)
        own = Limits(account.rpm, account.tpm, account.concurrency)
        markup = record.markup_bp
        if markup is None and account.markup is not None:
            markup = pricing.basis_points(account.markup)
        return Caller(
            account=record.account,
            key_id=record.key_id,
            limits=(*record.limits.of_key(record.key_id), *own.of_account()),
            key_limit_nanodollars=record.limit_nanodollars,
            markup_bp=markup,
        )
