"""API keys: made, checked, listed and revoked. Redis keeps a keyed digest, never the key.

A key reads `tw_<12 id>_<43 secret>_<6 checksum>`, all base62. The secret carries 256 random bits,
so one HMAC-SHA-256 with a pepper that is not in Redis is enough (a slow hash would only help
attackers to load the server). The checksum is CRC-32 of what stands before it: a mistyped or made-
up key is refused without asking Redis.

The text of a key is in `NewKey.text` and nowhere else: not in a repr, an error or a log line.
"""

from __future__ import annotations

import hmac
import re
import secrets
import zlib
from dataclasses import dataclass, field
from typing import Any, Final

from redis.asyncio import Redis

from policies.ledger.base import NANODOLLARS, Limits
from policies.ledger.calls import Calls
from policies.ledger.client import Ledger
from policies.ledger.connect import COMMAND_TIMEOUT_S

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_LENGTH: Final = 12
_SECRET_LENGTH: Final = 43  # 62**43 > 2**256
_CHECKSUM_LENGTH: Final = 6  # 62**6 > 2**32
_SHAPE: Final = re.compile(r"(tw_([0-9A-Za-z]{12})_([0-9A-Za-z]{43}))_([0-9A-Za-z]{6})", re.ASCII)
_INDEX: Final = "keys"
_MARKER: Final = "first_start"
_PENDING: Final = "first_start:pending"
_FIELDS: Final = (
    "account",
    "digest",
    "name",
    "created_us",
    "disabled",
    "rpm",
    "tpm",
    "concurrency",
    "limit_nanodollars",
    "expires_us",
    "markup_bp",
)


@dataclass(frozen=True, slots=True)
class ParsedKey:
    """A text that has a key's shape and checksum. Whether such a key exists is not known."""

    key_id: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """A key to be made. None is no limit; `markup_bp` None is the account's or model's markup."""

    account: str
    name: str = ""
    limits: Limits = field(default_factory=Limits)
    limit_nanodollars: int | None = None
    expires_us: int | None = None
    markup_bp: int | None = None


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What is kept of a key. `digest` is HMAC-SHA-256 of the secret, in hex."""

    key_id: str
    account: str
    digest: str = field(repr=False)
    name: str
    created_us: int
    disabled: bool
    limits: Limits
    limit_nanodollars: int | None
    expires_us: int | None
    markup_bp: int | None

    def is_active(self, now_us: int) -> bool:
        """Whether the key may be used at `now_us`, microseconds since 1970."""
        return not self.disabled and (self.expires_us is None or now_us < self.expires_us)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made. `text` is the only copy of it: show it once."""

    text: str = field(repr=False)
    record: KeyRecord


@dataclass(frozen=True, slots=True)
class FirstStart:
    """What the very first start gives: an account with credit, and one key."""

    account: str = "default"
    credit_nanodollars: int = NANODOLLARS
    grant_id: str = "first-start"
    key_name: str = "first start"


def parse_key(text: str) -> ParsedKey | None:
    """The id and secret of a key's text, or None if it has not the shape or its checksum is wrong.

    Asks nobody.
    """
    match = _SHAPE.fullmatch(text)
    if match is None or not hmac.compare_digest(_checksum(match[1]), match[4]):
        return None
    return ParsedKey(match[2], match[3])


class KeyStore:
    """The keys in Redis. Belongs to one event loop; close it with `aclose`."""

    def __init__(
        self, redis: Redis, pepper: bytes, *, timeout_s: float = COMMAND_TIMEOUT_S
    ) -> None:
        """Takes where Redis is from `redis`; with another pepper no key verifies.

        Raises:
            ValueError: the pepper is shorter than 16 bytes.
        """
        if len(pepper) < 16:
            raise ValueError("the pepper must have at least 16 bytes")
        self._pepper = pepper
        self._calls = Calls(redis, timeout_s)

    async def aclose(self) -> None:
        """Closes the connection."""
        await self._calls.aclose()

    async def create(self, request: KeyRequest) -> NewKey:
        """Makes and stores a key. The account need not exist; see `Ledger.create_account`.

        Raises:
            LedgerUnavailable: no answer; the key may be stored, but nobody knows its text.
            ValueError: the account has no name.
        """
        return await self._create(request, _random(_ID_LENGTH))

    async def get(self, key_id: str) -> KeyRecord | None:
        """The record of a key, disabled or expired ones too; None if there is none.

        Raises:
            LedgerUnavailable: no answer.
        """
        return _record(key_id, await self._calls.command("HMGET", _name(key_id), *_FIELDS))

    def verify(self, record: KeyRecord, secret: str) -> bool:
        """Whether `secret` is that key's, in a time that does not depend on where they differ.

        Asks nobody.
        """
        return hmac.compare_digest(record.digest, self._digest(secret))

    async def list(self, account: str | None = None) -> list[KeyRecord]:
        """All keys, or an account's, oldest first, revoked ones too.

        Raises:
            LedgerUnavailable: no answer.
        """
        ids = [key_id.decode() for key_id in await self._calls.command("SMEMBERS", _INDEX)]
        replies = await self._calls.many([("HMGET", _name(key_id), *_FIELDS) for key_id in ids])
        records = [_record(key_id, reply) for key_id, reply in zip(ids, replies, strict=True)]
        found = [one for one in records if one is not None and account in (None, one.account)]
        return sorted(found, key=lambda one: (one.created_us, one.key_id))

    async def revoke(self, key_id: str) -> bool:
        """Disables a key for good; False if there is none.

        Raises:
            LedgerUnavailable: no answer; revoke again.
        """
        if not await self._calls.command("EXISTS", _name(key_id)):
            return False
        await self._calls.command("HSET", _name(key_id), "disabled", 1)
        return True

    async def first_start(self, ledger: Ledger, plan: FirstStart | None = None) -> NewKey | None:
        """Gives the first start's credit and key to exactly one caller ever; others get None.

        The marker is set only after grant and key exist, so a crash before it repeats safely: the
        grant has a fixed id, and keys of attempts that did not win are removed by the winner.

        Raises:
            LedgerUnavailable: no answer; call again.
        """
        if await self._calls.command("EXISTS", _MARKER):
            return None
        plan = plan or FirstStart()
        key_id = _random(_ID_LENGTH)
        await self._calls.command("SADD", _PENDING, key_id)
        await ledger.grant(plan.grant_id, plan.account, plan.credit_nanodollars)
        key = await self._create(KeyRequest(plan.account, plan.key_name), key_id)
        won = await self._calls.command("SET", _MARKER, key_id, "NX")
        if not won:
            await self._remove(key_id)
            return None
        for other in await self._calls.command("SMEMBERS", _PENDING):
            if other.decode() != key_id:
                await self._remove(other.decode())
        await self._calls.command("DEL", _PENDING)
        return key

    async def _create(self, request: KeyRequest, key_id: str) -> NewKey:
        if not request.account:
            raise ValueError("a key needs an account")
        secret = _random(_SECRET_LENGTH)
        seconds, microseconds = await self._calls.command("TIME")
        record = KeyRecord(
            key_id=key_id,
            account=request.account,
            digest=self._digest(secret),
            name=request.name,
            created_us=int(seconds) * 1_000_000 + int(microseconds),
            disabled=False,
            limits=request.limits,
            limit_nanodollars=request.limit_nanodollars,
            expires_us=request.expires_us,
            markup_bp=request.markup_bp,
        )
        fields: list[str | int] = []
        for name, value in _values(record).items():
            if value is not None:
                fields += (name, value)
        await self._calls.command("HSET", _name(key_id), *fields)
        await self._calls.command("SADD", _INDEX, key_id)
        body = f"tw_{key_id}_{secret}"
        return NewKey(f"{body}_{_checksum(body)}", record)

    async def _remove(self, key_id: str) -> None:
        await self._calls.command("SREM", _INDEX, key_id)
        await self._calls.command("DEL", _name(key_id))

    def _digest(self, secret: str) -> str:
        return hmac.digest(self._pepper, secret.encode(), "sha256").hex()


def _name(key_id: str) -> str:
    return f"key:{key_id}"


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _checksum(body: str) -> str:
    value = zlib.crc32(body.encode())
    digits = []
    for _ in range(_CHECKSUM_LENGTH):
        value, digit = divmod(value, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


def _values(record: KeyRecord) -> dict[str, str | int | None]:
    return {
        "account": record.account,
        "digest": record.digest,
        "name": record.name,
        "created_us": record.created_us,
        "disabled": int(record.disabled),
        "rpm": record.limits.rpm,
        "tpm": record.limits.tpm,
        "concurrency": record.limits.concurrency,
        "limit_nanodollars": record.limit_nanodollars,
        "expires_us": record.expires_us,
        "markup_bp": record.markup_bp,
    }


def _record(key_id: str, reply: list[bytes | None]) -> KeyRecord | None:
    raw: dict[str, Any] = dict(zip(_FIELDS, reply, strict=True))
    if raw["account"] is None or raw["digest"] is None:  # half a record: `revoke` met a removed key
        return None

    def number(name: str) -> int | None:
        return None if raw[name] is None else int(raw[name])

    return KeyRecord(
        key_id=key_id,
        account=raw["account"].decode(),
        digest=raw["digest"].decode(),
        name=(raw["name"] or b"").decode(),
        created_us=number("created_us") or 0,
        disabled=bool(number("disabled")),
        limits=Limits(number("rpm"), number("tpm"), number("concurrency")),
        limit_nanodollars=number("limit_nanodollars"),
        expires_us=number("expires_us"),
        markup_bp=number("markup_bp"),
    )
