"""``tollway credits``, ``journal`` and ``ledger``: look at the money, and grant some."""

from __future__ import annotations

from datetime import UTC, datetime

import click
import msgspec

from gateway.cli.common import Books, CommandFailed, Options, books, common, run, usd
from gateway.cli.keys import Dollars
from policies.ledger.base import Balance, JournalLine


@click.group("credits")
def credits_group() -> None:
    """Grant and show credit."""


@credits_group.command()
@click.argument("account")
@click.argument("amount", type=Dollars(), metavar="USD")
@click.option("--id", "external_id", required=True, help="Your id of the payment: granted once.")
@common
def grant(options: Options, account: str, amount: int, external_id: str) -> None:
    """Give an account credit; the same id a second time changes nothing."""
    if amount == 0:
        raise CommandFailed("the amount must be above zero")
    run(_grant(options, account, amount, external_id))


async def _grant(options: Options, account: str, amount: int, external_id: str) -> None:
    async with books(options) as found:
        await _known(found, account)
        try:
            granted = await found.ledger.grant(external_id, account, amount)
        except ValueError as error:
            raise CommandFailed(str(error)) from None
    document = {
        "id": external_id,
        "account": account,
        "granted_nanodollars": granted.amount_nanodollars,
        "available_nanodollars": granted.available_nanodollars,
        "duplicate": granted.duplicate,
    }
    verb = "was granted before" if granted.duplicate else "granted"
    text = f"{verb}: {usd(amount)} to {account}, {usd(granted.available_nanodollars)} available"
    options.say(document, text)


@credits_group.command()
@click.argument("account")
@common
def show(options: Options, account: str) -> None:
    """Show what an account has, holds and has spent."""
    run(_show(options, account))


async def _show(options: Options, account: str) -> None:
    async with books(options) as found:
        balance = await _known(found, account)
    text = (
        f"{account}: {usd(balance.available_nanodollars)} available, "
        f"{usd(balance.held_nanodollars)} held, {usd(balance.spent_nanodollars)} spent"
    )
    options.say(balance.as_dict(), text)


async def _known(found: Books, account: str) -> Balance:
    """Return an account's balance; a typing error in its name must not make a new one.

    Raises:
        CommandFailed: there is no such account.
    """
    try:
        balance = await found.ledger.balance(account)
    except ValueError as error:
        raise CommandFailed(str(error)) from None
    if balance is None:
        raise CommandFailed(f"there is no account {account!r}; 'tollway keys create' makes one")
    return balance


@click.group()
def journal() -> None:
    """Read the record of every money movement."""


@journal.command()
@click.option("--account", help="Only this account's lines.")
@click.option("--follow", is_flag=True, help="Go on with new lines until Ctrl-C.")
@click.option(
    "--lines",
    type=click.IntRange(1, 100_000),
    default=20,
    show_default=True,
    help="How many of the newest.",
)
@common
def tail(options: Options, account: str | None, follow: bool, lines: int) -> None:
    """Show the newest lines; with --follow and --json, one JSON object a line."""
    try:
        run(_tail(options, account, follow, lines))
    except KeyboardInterrupt:
        return


async def _tail(options: Options, account: str | None, follow: bool, lines: int) -> None:
    async with books(options) as found:
        entries = await found.ledger.journal_tail(account, lines)
        if not follow:
            text = "\n".join(_words(entry) for entry in entries) or "the journal is empty"
            options.say([entry.as_dict() for entry in entries], text)
            return
        for entry in entries:
            _print(options, entry)
        async for entry in found.ledger.journal_follow(account):
            _print(options, entry)


def _print(options: Options, entry: JournalLine) -> None:
    line = msgspec.json.encode(entry.as_dict()).decode() if options.as_json else _words(entry)
    click.echo(line)


def _words(entry: JournalLine) -> str:
    at = datetime.fromtimestamp(entry.at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S")
    tokens = " ".join(f"{kind}={count}" for kind, count in entry.tokens.items())
    flags = f" [{','.join(entry.flags)}]" if entry.flags else ""
    return (
        f"{at} {entry.type} {entry.account} {usd(entry.charge_nanodollars)} "
        f"{entry.model or '-'} {tokens} {entry.id}{flags}"
    )


@click.group("ledger")
def ledger_group() -> None:
    """Check the ledger."""


@ledger_group.command()
@common
def verify(options: Options) -> None:
    """Check that not a nano-dollar is missing: balances, holds, totals and the journal."""
    run(_verify(options))


async def _verify(options: Options) -> None:
    async with books(options) as found:
        report = await found.ledger.verify()
    if report.ok:
        text = (
            f"ok: {report.accounts} accounts, {usd(report.granted_nanodollars)} granted = "
            f"{usd(report.available_nanodollars)} available + {usd(report.held_nanodollars)} held "
            f"+ {usd(report.spent_nanodollars)} spent"
        )
    else:
        text = "\n".join(["the ledger does not add up:", *report.problems])
    options.say(report.as_dict(), text)
    if not report.ok:
        raise SystemExit(1)
