"""langchain-openrouter, unmodified: asks a gateway whole, streamed and with tools; prints JSON."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from typing import Any

from langchain_core.tools import tool
from langchain_openrouter import ChatOpenRouter


@tool
def get_weather(city: str) -> str:
    """Say the weather of a city."""
    return f"sunny in {city}"


def main(base_url: str, key: str) -> dict[str, Any]:
    """Ask everything; return what was understood."""
    chat = ChatOpenRouter(model="acme/model", api_key=key, base_url=base_url, max_tokens=100)
    whole = chat.invoke("Say hello.")
    pieces = list(chat.stream("Say hello."))
    streamed = pieces[0]
    for piece in pieces[1:]:
        streamed += piece
    called = chat.bind_tools([get_weather]).invoke("Weather in Köln?")
    called_streamed = None
    for piece in chat.bind_tools([get_weather]).stream("Weather in Köln?"):
        called_streamed = piece if called_streamed is None else called_streamed + piece
    return {
        "version": version("langchain-openrouter"),
        "whole": whole.content,
        "streamed": streamed.content,
        "finish": whole.response_metadata["finish_reason"],
        "finish_streamed": streamed.response_metadata["finish_reason"],
        "usage": whole.usage_metadata["input_tokens"],
        "usage_streamed": streamed.usage_metadata["input_tokens"],
        "calls": [[call["name"], call["args"]] for call in called.tool_calls],
        "calls_streamed": [[call["name"], call["args"]] for call in called_streamed.tool_calls],
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
