"""The catalogue, read by OpenRouter's own client, which checks every key and type of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openrouter
import pytest
from openrouter import errors

from tests.gateway_harness import Gateway, fake, model, running, settings

pytestmark = pytest.mark.anyio

TIERED = {
    "prompt": "1",
    "completion": "2",
    "cached": "0.1",
    "tiers": [{"above_prompt_tokens": 1000, "prompt": "3", "completion": "4"}],
}


def entry(provider: str, price: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """An endpoint."""
    return {**fake(price), "provider": provider, **more}


MODELS = (
    model(entry("up", TIERED, context_tokens=8000), id="acme/large", aliases=["big"]),
    model(
        entry("up", {"prompt": "0.5", "completion": "0.5"}, context_tokens=4000),
        entry("down", {"prompt": "9", "completion": "9"}, max_output_tokens=100),
        id="acme/small",
        strategy="ordered",
    ),
    model(entry("other", capabilities={"vision": False, "tools": False}), id="zeta/text"),
    model(fake(), id="gone", expires="2020-01-01", replacement="acme/small"),
    model(fake(), id="going", expires="2999-12-31"),
)


@pytest.fixture
async def gateway(redis_url: str) -> AsyncIterator[Gateway]:
    """A gateway with some models."""
    async with running(redis_url, settings(*MODELS, markup="0.5")) as started:
        yield started


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[openrouter.OpenRouter]:
    """OpenRouter's generated client, which never retries here."""
    async with openrouter.OpenRouter(
        api_key=gateway.key, server_url=f"{gateway.base_url}/api/v1", retry_config=None
    ) as made:
        yield made


async def ids(gateway: Gateway, **query: Any) -> list[str]:
    """Return the names of the models that a query finds."""
    answer = await gateway.client.get("/v1/models", params=query)
    assert answer.status_code == 200, answer.text
    return [found["id"] for found in answer.json()["data"]]


async def test_the_list_passes_the_clients_checks(client: openrouter.OpenRouter) -> None:
    """Prices with the markup, tiers as overrides, windows; what has expired is not there."""
    answer = await client.models.list_async()
    assert answer is not None
    found = {entry.id: entry for entry in answer.result.data}
    assert list(found) == ["acme/large", "acme/small", "zeta/text", "going"]
    assert answer.result.total_count == 4
    assert answer.result.links.next is None
    large = found["acme/large"]
    assert (large.pricing.prompt, large.pricing.completion) == ("0.0000015", "0.000003")
    assert large.pricing.overrides is not None
    (tier,) = large.pricing.overrides
    assert (tier.min_prompt_tokens, tier.prompt, tier.completion) == (
        1000,
        "0.0000045",
        "0.000006",
    )
    assert tier.input_cache_read == "0.0000045", "a tier without a cached rate charges the prompt's"
    assert large.context_length == 8000
    assert found["going"].expiration_date == "2999-12-31"
    assert large.expiration_date is None


async def test_single_models_counts_and_providers_pass_them_too(
    client: openrouter.OpenRouter,
) -> None:
    """By name and by alias."""
    one = await client.models.get_async(author="acme", slug="large")
    assert one.data.id == "acme/large"
    assert (await client.models.count_async()).data.count == 4
    listed = await client.providers.list_async()
    assert [provider.slug for provider in listed.data] == ["down", "fake", "other", "up"]


async def test_the_endpoints_of_a_model_pass_them_too(client: openrouter.OpenRouter) -> None:
    """Each with its own price, window and parameters."""
    answer = await client.endpoints.list_async(author="acme", slug="small")
    assert [entry.tag for entry in answer.data.endpoints] == ["up", "down"]
    up, down = answer.data.endpoints
    assert (up.context_length, up.max_completion_tokens, up.status) == (4000, None, 0)
    assert (down.pricing.prompt, down.max_completion_tokens) == ("0.0000135", 100)


async def test_a_model_that_is_not_there_is_a_404_with_a_hint(
    gateway: Gateway, client: openrouter.OpenRouter
) -> None:
    """In the shape of all errors; an alias is there, an expired model is not."""
    with pytest.raises(errors.NotFoundResponseError) as caught:
        await client.models.get_async(author="acme", slug="lage")
    assert "did you mean 'acme/large'?" in str(caught.value)
    for path in ("/v1/models/nobody", "/v1/models/nobody/endpoints", "/api/v1/model/gone"):
        answer = await gateway.client.get(path)
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == 404
    assert (await gateway.client.get("/api/v1/model/big")).json()["data"]["id"] == "acme/large"
    async with gateway.openai() as other:
        retrieved = await other.models.retrieve("acme/large")
    assert (retrieved.id, retrieved.object, retrieved.owned_by) == ("acme/large", "model", "up")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"q": "ACME"}, ["acme/large", "acme/small"]),
        ({"q": "big"}, ["acme/large"]),
        ({"context": 5000}, ["acme/large"]),
        ({"max_price": "0.75"}, ["acme/small", "zeta/text", "going"]),
        ({"min_price": "0.76"}, ["acme/large"]),
        ({"min_output_price": "3", "max_output_price": 3}, ["acme/large"]),
        ({"providers": "down,other"}, ["acme/small", "zeta/text"]),
        ({"model_authors": "zeta"}, ["zeta/text"]),
        ({"supported_parameters": "max_tokens,tools"}, []),
        ({"supported_parameters": "max_tokens", "q": "acme"}, ["acme/large", "acme/small"]),
        ({"input_modalities": "text,image"}, []),
        ({"input_modalities": "text", "q": "zeta"}, ["zeta/text"]),
        ({"output_modalities": "image"}, []),
        (
            {"output_modalities": "all", "sort": ""},
            ["acme/large", "acme/small", "zeta/text", "going"],
        ),
        ({"sort": "pricing-high-to-low", "limit": 1}, ["acme/large"]),
        ({"sort": "context-high-to-low", "offset": 1, "limit": 2}, ["acme/small", "zeta/text"]),
    ],
)
async def test_filters_orders_and_pages(
    gateway: Gateway, query: dict[str, Any], expected: list[str]
) -> None:
    """All that are given must hold; prices are USD per million tokens, with the markup."""
    assert await ids(gateway, **query) == expected


async def test_pages_lead_to_each_other(gateway: Gateway) -> None:
    """Each link keeps the query; the last page has none."""
    path, seen = "/v1/models?limit=3&q=a", []
    while path:
        page = (await gateway.client.get(path)).json()
        seen += [found["id"] for found in page["data"]]
        path = page["links"]["next"]
    assert seen == ["acme/large", "acme/small", "zeta/text"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"zdr": "true"}, "no filter 'zdr'; known are context, "),
        ({"sort": "most-popular"}, "no order 'most-popular'; known are pricing-low-to-high"),
        ({"limit": "1001"}, "'limit' must be a whole number from 0 to 1000"),
        ({"offset": "-1"}, "'offset' must be a whole number"),
        ({"max_price": "cheap"}, "'max_price' must be a number from 0 on"),
        ({"context": "nan"}, "'context' must be a number"),
    ],
)
async def test_what_cannot_be_asked_is_refused_by_name(
    gateway: Gateway, query: dict[str, str], words: str
) -> None:
    """Never ignored: a list that is not what was asked for is worse than none."""
    answer = await gateway.client.get("/v1/models", params=query)
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]


async def test_an_expired_model_is_refused_with_its_replacement(gateway: Gateway) -> None:
    """And one whose day is still to come is served."""
    refused = await gateway.chat(model="gone")
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert "was served until 2020-01-01; use 'acme/small'" in error["message"]
    assert (await gateway.chat(model="going")).status_code == 200
