"""``tollway models`` and ``tollway chat``: what is served, and a word with it."""

from __future__ import annotations

import json
import os
import sys
from decimal import Decimal
from typing import Any

import click
import httpx

from gateway.cli.common import CommandFailed, Options, base_url, common
from gateway.endpoint_settings import EndpointSettings
from gateway.settings import ModelSettings
from gateway.supervisor.lockfile import lock_path, read_lock

KEY_VARIABLE = "TOLLWAY_API_KEY"
ANSWER_S = 900.0


@click.command()
@common
def models(options: Options) -> None:
    """List the models of the configuration with their endpoints and prices."""
    settings = options.settings()
    text = "\n".join(_words(model) for model in settings.models)
    options.say([_document(model) for model in settings.models], text)


def _document(model: ModelSettings) -> dict[str, Any]:
    return {
        "id": model.id,
        "aliases": list(model.aliases),
        "strategy": model.strategy,
        "endpoints": [
            {
                "provider": endpoint.slug,
                "backend": endpoint.backend,
                "price": _price(endpoint),
            }
            for endpoint in model.endpoints
        ],
    }


def _price(endpoint: EndpointSettings) -> dict[str, str] | None:
    """Return what a million tokens cost in USD; None where that depends on the asked name."""
    if endpoint.price is None and endpoint.listed is None:
        return None
    price = endpoint.rates()
    return {"prompt": _usd(price.prompt), "completion": _usd(price.completion)}


def _usd(picodollars: int) -> str:
    return f"{(Decimal(picodollars) / 10**6).normalize():f}"


def _priced(endpoint: EndpointSettings) -> str:
    price = _price(endpoint)
    if price is None:
        return "priced from the table"
    return f"{price['prompt']} / {price['completion']} USD per million tokens"


def _words(model: ModelSettings) -> str:
    ends = ", ".join(f"{e.slug} ({e.backend}; {_priced(e)})" for e in model.endpoints)
    return f"{model.id}: {ends}"


@click.command()
@click.argument("model")
@click.argument("prompt", required=False)
@common
def chat(options: Options, model: str, prompt: str | None) -> None:
    """Ask MODEL of the running server; the answer streams as it comes.

    The key is read from the variable TOLLWAY_API_KEY, the prompt from the command line or
    standard input.
    """
    key = os.environ.get(KEY_VARIABLE)
    if not key:
        raise CommandFailed(f"set {KEY_VARIABLE} to an API key; 'tollway keys create' makes one")
    state = read_lock(lock_path(options.data.absolute()))
    if state is None or state.port is None or not state.is_live():
        raise CommandFailed(f"no server runs on {options.data}; start one with 'tollway serve'")
    if prompt is None:
        prompt = sys.stdin.read()
    body = {"model": model, "messages": [{"role": "user", "content": prompt}]}
    url = f"{base_url(state.host, state.port)}/v1/chat/completions"
    try:
        with httpx.Client(
            headers={"Authorization": f"Bearer {key}"}, timeout=ANSWER_S, trust_env=False
        ) as client:
            if options.as_json:
                answer = client.post(url, json=body)
                _raise_for(answer)
                click.echo(json.dumps(answer.json()))
            else:
                _stream(client, url, body | {"stream": True})
    except httpx.HTTPError as error:
        raise CommandFailed(f"the server at {url} does not answer: {error}") from None


def _stream(client: httpx.Client, url: str, body: dict[str, Any]) -> None:
    with client.stream("POST", url, json=body) as answer:
        if answer.status_code != 200:
            answer.read()
        _raise_for(answer)
        for line in answer.iter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            chunk = json.loads(line.removeprefix("data: "))
            if "error" in chunk:
                raise CommandFailed(f"the answer broke off: {chunk['error']['message']}")
            for choice in chunk["choices"]:
                click.echo(choice["delta"].get("content") or "", nl=False)
            sys.stdout.flush()
    click.echo()


def _raise_for(answer: httpx.Response) -> None:
    if answer.status_code == 200:
        return
    try:
        message = answer.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = answer.text[:500]
    raise CommandFailed(f"{answer.status_code}: {message}")
