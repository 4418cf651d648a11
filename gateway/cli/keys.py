"""``tollway keys``: make, list and revoke API keys."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation

import click

from gateway.cli.common import CommandFailed, Options, books, common, run, usd
from policies import pricing
from policies.ledger.base import Limits
from policies.ledger.keys import KeyRecord, KeyRequest

_UNITS_S = {"m": 60, "h": 3600, "d": 86_400}


class Dollars(click.ParamType[int]):
    """An exact amount of money in USD, given back in nano-dollars."""

    name = "USD"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Read it; wrong usage if it is no amount."""
        try:
            return pricing.nanodollars(Decimal(str(value)))
        except (InvalidOperation, ValueError):
            self.fail(f"{value!r} is no amount such as 2.50 (at most 9 decimals)", param, ctx)


class Moment(click.ParamType[int]):
    """A time to come: ``30d``, ``12h``, or an ISO 8601 date or time (UTC unless it says)."""

    name = "WHEN"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Read it as Unix microseconds; wrong usage if it is no time to come."""
        text, now_us = str(value), time.time_ns() // 1000
        if span := re.fullmatch(r"(\d{1,5})([mhd])", text):
            return now_us + int(span[1]) * _UNITS_S[span[2]] * 1_000_000
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            self.fail(f"{text!r} is no time such as 30d, 12h or 2027-01-31", param, ctx)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        at_us = round(moment.timestamp()) * 1_000_000
        if at_us <= now_us:
            self.fail(f"{text!r} is over already", param, ctx)
        return at_us


COUNT = click.IntRange(min=1)


@click.group()
def keys() -> None:
    """Make, list and revoke API keys."""


@keys.command()
@click.option("--account", required=True, help="The account; made if it does not exist.")
@click.option("--credit", type=Dollars(), help="Grant the account this much.")
@click.option("--name", default="", help="A name for people.")
@click.option("--rpm", type=COUNT, help="Requests per minute.")
@click.option("--tpm", type=COUNT, help="Tokens per minute.")
@click.option("--concurrency", type=COUNT, help="Requests at once.")
@click.option("--limit-usd", "limit", type=Dollars(), help="The most this key may ever spend.")
@click.option("--expires", type=Moment(), help="30d, 12h, or a date.")
@common
def create(
    options: Options,
    account: str,
    credit: int | None,
    name: str,
    limit: int | None,
    expires: int | None,
    **limits: int | None,
) -> None:
    """Make a key and print it, once."""
    request = KeyRequest(
        account=account,
        name=name,
        limits=Limits(**limits),
        limit_nanodollars=limit,
        expires_us=expires,
    )
    run(_create(options, request, credit or 0))


async def _create(options: Options, request: KeyRequest, credit: int) -> None:
    async with books(options) as found:
        try:
            await found.ledger.create_account(request.account)
            key = await found.keys.create(request)
            if credit:
                await found.ledger.grant(key.record.key_id, request.account, credit)
        except ValueError as error:
            raise CommandFailed(str(error)) from None
    document = {"key": key.text, "id": key.record.key_id, "account": request.account}
    options.say(document, key.text)


@keys.command("list")
@click.option("--account", help="Only this account's.")
@common
def list_keys(options: Options, account: str | None) -> None:
    """List keys; never the keys themselves."""
    run(_list(options, account))


async def _list(options: Options, account: str | None) -> None:
    async with books(options) as found:
        records = await found.keys.list(account)
    lines = [_line(record) for record in records] or ["no keys"]
    options.say([_document(record) for record in records], "\n".join(lines))


@keys.command()
@click.argument("key_id", metavar="ID")
@common
def revoke(options: Options, key_id: str) -> None:
    """Revoke a key for good; running workers forget it within seconds."""
    run(_revoke(options, key_id))


async def _revoke(options: Options, key_id: str) -> None:
    async with books(options) as found:
        if not await found.keys.revoke(key_id):
            raise CommandFailed(f"no key has the id {key_id!r}; see 'tollway keys list'")
    options.say({"id": key_id, "revoked": True}, f"revoked {key_id}")


def _document(record: KeyRecord) -> dict[str, object]:
    return {
        "id": record.key_id,
        "account": record.account,
        "name": record.name,
        "created_us": record.created_us,
        "disabled": record.disabled,
        "rpm": record.limits.rpm,
        "tpm": record.limits.tpm,
        "concurrency": record.limits.concurrency,
        "limit_nanodollars": record.limit_nanodollars,
        "expires_us": record.expires_us,
    }


def _line(record: KeyRecord) -> str:
    words = [record.key_id, record.account, record.name or "-"]
    words.append("revoked" if record.disabled else "active")
    if record.limit_nanodollars is not None:
        words.append(f"limit {usd(record.limit_nanodollars)}")
    return "  ".join(words)
