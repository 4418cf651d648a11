"""pydantic-ai's OpenRouter model, unmodified: asks whole, streamed and with a tool loop."""

from __future__ import annotations

import asyncio
import json
import sys
from importlib.metadata import version
from typing import Any

from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.models.openrouter import OpenRouterModel
from pydantic_ai.providers.openrouter import OpenRouterProvider


async def main(base_url: str, key: str) -> dict[str, Any]:
    """Ask everything; return what was understood."""
    client = AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0)
    model = OpenRouterModel("acme/model", provider=OpenRouterProvider(openai_client=client))
    plain = Agent(model)
    whole = await plain.run("Say hello.")
    async with plain.run_stream("Say hello.") as stream:
        streamed = await stream.get_output()
        streamed_usage = stream.usage
    cities: list[str] = []
    agent = Agent(model)

    @agent.tool_plain
    def get_weather(city: str) -> str:
        """Say the weather of a city."""
        cities.append(city)
        return f"sunny in {city}"

    looped = await agent.run("Weather in Köln?")
    async with agent.run_stream("Weather in Köln?") as stream:
        looped_streamed = await stream.get_output()
    usage = whole.usage
    return {
        "version": version("pydantic-ai-slim"),
        "whole": whole.output,
        "streamed": streamed,
        "usage": (usage() if callable(usage) else usage).input_tokens,
        "usage_streamed": (
            streamed_usage() if callable(streamed_usage) else streamed_usage
        ).input_tokens,
        "looped": looped.output,
        "looped_streamed": looped_streamed,
        "cities": cities,
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
