"""``tollway bench``: how fast your own gateway answers with real models, and what it costs."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

import click
import uvloop

from gateway.bench import cost
from gateway.bench.load import Plan, Tally, ask
from gateway.cli.common import CommandFailed, Options, base_url, common
from gateway.cli.models import KEY_VARIABLE
from gateway.supervisor.lockfile import lock_path, read_lock

ROUTE = "/chat/completions"

NEXT_STEPS = {
    "400": "is it the model's name? 'tollway models' lists the models",
    "401": f"{KEY_VARIABLE} holds no key of this server: 'tollway keys create' makes one",
    "402": "'tollway credits grant' gives the account credit",
    "404": "nothing is served there; the base URL of a gateway ends in /v1",
    "413": "use a smaller --prompt-bytes",
    "429": "limits refuse: use fewer --connections, or a key and an account with higher limits",
    "broken off": "the server's log says why",
    "connection": "is the server still running? 'tollway status' tells",
}
"""What to do about a kind of failure; what an upstream said needs no more words."""


@click.command()
@click.option("--url", help="The base URL; without one the server on the data folder is asked.")
@click.option("--model", required=True, help="The model to ask.")
@click.option(
    "--requests",
    type=click.IntRange(1, 10_000_000),
    default=100,
    show_default=True,
    help="How many requests in all.",
)
@click.option(
    "--connections",
    type=click.IntRange(1, 5_000),
    default=8,
    show_default=True,
    help="How many at once, each on a connection of its own.",
)
@click.option("--stream/--whole", default=True, help="Ask for streams (as by default) or not.")
@click.option(
    "--prompt-bytes",
    type=click.IntRange(1, 50_000_000),
    default=1024,
    show_default=True,
    help="The size of the prompt.",
)
@click.option(
    "--max-tokens",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="The most tokens of an answer.",
)
@click.option("--pid", type=click.IntRange(1), help="The server's process: measure its CPU, too.")
@common
def bench(options: Options, **given: Any) -> None:
    """Ask a running gateway many times at once and measure its answers.

    Requests are paid like all others. The key is read from the variable TOLLWAY_API_KEY. Exit 1
    if an answer was not complete.
    """
    pid = given.pop("pid")
    plan = Plan(url=_route(options, given.pop("url")), key=_key(), any_words=True, **given)
    before = None if pid is None else _cpu(pid)
    if before == {}:
        raise CommandFailed(f"--pid {pid}: no such process on this machine; 'tollway status' tells")

    def progress(tally: Tally) -> None:
        failed = sum(tally.wrong.values())
        words = f"{len(tally.total_s) + failed} of {plan.requests} answered, {failed} failed"
        click.echo(words, err=True)

    try:
        result = uvloop.run(ask(plan, progress))
    except OSError as error:
        raise CommandFailed(
            f"{plan.url} cannot be reached: {error.strerror or str(error) or 'no answer'}; "
            "start the server ('tollway serve') or give its base URL with --url"
        ) from None
    used_s = None if before is None else _used_s(before, _cpu(pid))
    document = _document(plan, result, used_s)
    options.say(document, _words(plan, document))
    if document["failed"]:
        raise SystemExit(1)


def _key() -> str:
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key:
        raise CommandFailed(f"set {KEY_VARIABLE} to an API key; 'tollway keys create' makes one")
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise CommandFailed(f"{KEY_VARIABLE} has characters that no key has; look for a line break")
    return key


def _route(options: Options, url: str | None) -> str:
    if url is None:
        state = read_lock(lock_path(options.data.absolute()))
        if state is None or state.port is None or not state.is_live():
            raise CommandFailed(
                f"no server runs on {options.data}; start one with 'tollway serve', "
                "or give the base URL of one with --url"
            )
        return f"{base_url(state.host, state.port)}/v1{ROUTE}"
    try:
        usable = url.isascii() and url.isprintable() and " " not in url
        parts = urlsplit(url) if usable else None
        usable = parts is not None and (parts.port or 1) > 0
    except ValueError:
        parts = None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
        raise CommandFailed(f"--url {url!r}: write it as http://127.0.0.1:8080/v1")
    return f"{url.rstrip('/').removesuffix(ROUTE)}{ROUTE}"


def _cpu(pid: int) -> dict[int, float]:
    """Return the CPU seconds of each process of a tree; those that end meanwhile are left out."""
    found = {}
    for one in cost.tree(pid):
        try:
            found[one] = cost.cpu_s([one])
        except OSError:
            continue
    return found


def _used_s(before: dict[int, float], after: dict[int, float]) -> float:
    return sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items())


def _document(plan: Plan, result: dict[str, Any], used_s: float | None) -> dict[str, Any]:
    right, seconds = result["requests"], result["seconds"]
    return {
        "url": plan.url,
        "model": plan.model,
        "requests": right,
        "failed": plan.requests - right,
        "seconds": round(seconds, 3),
        "requests_per_second": round(right / seconds, 2),
        "chunks_per_second": round(result["pieces"] / seconds, 2) if plan.stream else None,
        "first_content_ms": result["first_ms"] if plan.stream and right else None,
        "total_ms": result["total_ms"] if right else None,
        "cpu_us_per_request": None if used_s is None else round(used_s / result["begun"] * 1e6),
        "errors": [
            {"kind": kind, "count": count, "message": result["said"][kind]}
            for kind, count in sorted(result["wrong"].items(), key=lambda one: -one[1])
        ],
    }


def _words(plan: Plan, found: dict[str, Any]) -> str:
    kind = "streams" if plan.stream else "whole answers"
    lines = [
        f"{found['requests']} {kind} of {found['model']} in {found['seconds']:.1f} s "
        f"from {plan.connections} connections, {found['failed']} failed"
    ]
    lines.append(f"  requests per second  {found['requests_per_second']:,.1f}")
    if found["chunks_per_second"] is not None:
        lines.append(f"  chunks per second    {found['chunks_per_second']:,.1f}")
    for name, label in (("first_content_ms", "first content"), ("total_ms", "whole answer")):
        if found[name] is not None:
            times = ", ".join(f"{at} {ms:,.1f} ms" for at, ms in found[name].items())
            lines.append(f"  {label:<20} {times}")
    if found["cpu_us_per_request"] is not None:
        lines.append(f"  CPU per request      {found['cpu_us_per_request']:,} us")
    for error in found["errors"]:
        lines.append(f"  {error['count']} x {error['kind']}: {error['message']}")
        if error["kind"] in NEXT_STEPS:
            lines.append(f"    {NEXT_STEPS[error['kind']]}")
    return "\n".join(lines)
