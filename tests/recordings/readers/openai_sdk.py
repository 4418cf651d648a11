"""OpenAI's client, given recorded bytes instead of a network."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import openai

from tests.recordings.extract import Extract

Failed = (openai.APIError, json.JSONDecodeError)
"""What the client raises in the middle of a stream: an error in it, or no JSON."""


def client(body: bytes, *, stream: bool) -> openai.OpenAI:
    """Return a client whose every request is answered by these bytes."""
    kind = "text/event-stream" if stream else "application/json"

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": kind}, content=body)

    transport = httpx2.Client(transport=httpx2.MockTransport(answer))
    return openai.OpenAI(
        api_key="none", base_url="http://recorded", http_client=transport, max_retries=0
    )


def events(ask: Callable[[], Any], extract: Extract, *, stream: bool) -> Iterator[dict[str, Any]]:
    """Yield what the client made of the answer; an error that it raised goes into the extract."""
    try:
        answer = ask()
        for event in answer if stream else [answer]:
            yield event.to_dict(mode="json", warnings=False)
    except openai.APIError as error:
        extract.error = error.message
    except json.JSONDecodeError:
        return
