"""One entry for all models of a vendor, priced from the table of list prices."""

from __future__ import annotations

from typing import Any

import pytest

import backends
from backends.vendors import Vendor
from gateway import config, endpoints, prices
from gateway.endpoint_settings import EndpointSettings
from gateway.settings import ModelSettings
from tests.gateway.upstreams import answer, upstream
from tests.gateway_harness import fake, model, running, settings

BASE = {"backend": "openai", "base_url": "https://api.example.com/v1"}
PRICE = {"prompt": "1", "completion": "2"}


@pytest.fixture(autouse=True)
def _prices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Endpoints of this kind are a known vendor's here."""
    monkeypatch.setattr(
        backends, "price_list", lambda kind, options: "openai" if kind == "openai" else ""
    )


def wildcard(id: str = "openai/*", **endpoint: Any) -> ModelSettings:
    """A wildcard model with one endpoint."""
    return ModelSettings.model_validate({"id": id, "endpoints": [{**BASE, **endpoint}]})


def test_a_price_that_is_not_written_comes_from_the_table() -> None:
    """With the window; what is written counts before it; what is in neither is an error."""
    listed = prices.find("openai", "gpt-4o")
    assert listed is not None
    assert listed.context
    given = EndpointSettings.model_validate({**BASE, "model": "gpt-4o"})
    assert given.rates() == listed.price
    assert given.window() == listed.context
    own = EndpointSettings.model_validate(
        {**BASE, "model": "gpt-4o", "price": PRICE, "context_tokens": 9}
    )
    assert (own.rates().prompt, own.window()) == (1_000_000, 9)
    with pytest.raises(config.ConfigError) as caught:
        config.parse({"models": [{"id": "m", "endpoints": [{**BASE, "model": "nope"}]}]}, "f")
    assert "models.0.endpoints.0: 'price': is required: {prompt: USD per million tokens" in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("model", "given", "held"),
    [
        ("gpt-4o", {}, 4096),
        ("gpt-4o-mini", {}, 48_169),
        ("gpt-4o-mini-2024-07-18", {}, 48_169),
        ("gpt-4o-mini", {"max_image_tokens": 0}, 0),
        ("gpt-4o-mini", {"max_image_tokens": 2_833}, 2_833),
    ],
)
def test_an_image_is_held_at_the_most_that_its_model_counts(
    model: str, given: dict[str, Any], held: int
) -> None:
    """As configured, as listed, or 4,096 tokens: a report of more than was held is not charged."""
    document = {**BASE, "model": model, **given}
    assert EndpointSettings.model_validate(document).image_tokens() == held


def test_parts_that_the_table_has_no_price_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Audio is dearer than text: an endpoint at list price does not take it."""
    monkeypatch.undo()
    name = next(
        name
        for name, entry in prices.table().providers["google"].models.items()
        if "input_audio" in entry.unpriced and not entry.unsold
    )
    given = {**BASE, "backend": "gemini", "model": name}
    assert "input_audio" in EndpointSettings.model_validate(given).unpriced()
    own = EndpointSettings.model_validate({**given, "price": PRICE})
    assert own.unpriced() == frozenset()


@pytest.mark.parametrize(
    ("endpoint", "name", "upstream"),
    [
        ({}, "openai/gpt-4o", "gpt-4o"),
        ({"model": "*"}, "openai/gpt-4o", "gpt-4o"),
        ({"model": "eu/*", "price": PRICE}, "openai/x", "eu/x"),
        ({"price": PRICE}, "openai/@cf/meta/a-b.c:free", "@cf/meta/a-b.c:free"),
        ({}, "openai/unknown", None),
        ({}, "openai/", None),
        ({"price": PRICE}, "openai/../keys", None),
        ({"price": PRICE}, "openai/a/../b", None),
        ({"price": PRICE}, "openai//x", None),
        ({"price": PRICE}, "openai/a?b", None),
        ({"price": PRICE}, "openai/" + "x" * 201, None),
        ({"price": PRICE}, "other/x", None),
    ],
)
def test_the_star_is_what_was_asked(
    endpoint: dict[str, Any], name: str, upstream: str | None
) -> None:
    """Names that no price is known for, or that could be a path, stand for nothing."""
    found = wildcard(**endpoint).named(name)
    assert (found and found.endpoints[0].model) == upstream
    if found is not None:
        assert found.id == name


def test_the_names_of_a_wildcard_are_those_of_the_table() -> None:
    """With the part of the upstream's name that the entry writes itself."""
    assert "openai/gpt-4o" in wildcard().names()
    assert "small/mini" in wildcard("small/*", model="gpt-4o-*").names()
    assert wildcard(backend="fake", base_url="", price=PRICE).names() == ()


@pytest.mark.anyio
async def test_a_wildcard_serves_lists_and_prices_models(redis_url: str) -> None:
    """Exact names win, then the longest prefix; the upstream gets its own name."""
    async with upstream(answer(["hello "])) as up:
        every = up.endpoint("up")
        del every["model"], every["price"]
        given = settings(
            model(every, id="openai/*"),
            model(fake(text="from the longer"), id="openai/gpt-4o-*"),
            model(fake(text="from the exact"), id="openai/gpt-4o-mini"),
        )
        async with running(redis_url, given) as gateway:
            reply = (await gateway.chat(model="openai/gpt-4o")).json()
            assert (reply["model"], up.calls[-1].body["model"]) == ("openai/gpt-4o", "gpt-4o")
            longer = (await gateway.chat(model="openai/gpt-4o-x")).json()
            assert longer["choices"][0]["message"]["content"] == "from the longer"
            exact = (await gateway.chat(model="openai/gpt-4o-mini")).json()
            assert exact["choices"][0]["message"]["content"] == "from the exact"
            assert (await gateway.chat(model="openai/nope")).status_code == 400
            assert (await gateway.chat(model="openai/*")).status_code == 400
            page = (await gateway.client.get("/v1/models")).json()
            listed = {found["id"]: found for found in page["data"]}
            assert "openai/*" not in listed
            assert set(wildcard().names()) >= set(listed) - {"openai/gpt-4o-mini"}
            assert listed["openai/gpt-4o"]["pricing"]["prompt"] == "0.0000025"
            one = await gateway.client.get("/v1/models/openai/gpt-4o/endpoints")
            assert one.json()["data"]["endpoints"][0]["tag"] == "up"
            metrics = (await gateway.client.get("/metrics")).text
            assert 'model="openai/gpt-4o-*"' in metrics
            assert 'model="openai/gpt-4o"' in metrics
            assert "gpt-4o-x" not in metrics, "a label is never a caller's own word"


@pytest.mark.anyio
async def test_the_number_of_live_models_is_bounded(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one unused for longest is let go; what is in use stays; all in use is a 503."""
    monkeypatch.setattr(endpoints, "MAX_LIVE", 2)
    async with running(redis_url, settings(model(fake(), id="any/*"))) as gateway:
        table = gateway.worker.table
        for name in ("a", "b", "a", "c"):
            assert (await gateway.chat(model=f"any/{name}")).status_code == 200
        names = [endpoint.model.id for endpoint in table.endpoints]
        assert names == ["any/*", "any/a", "any/c"]
        assert table.endpoint("any/b@fake").model.id == "any/b", "a plan's endpoint is built again"
        for endpoint in table.endpoints:
            endpoint.in_flight += 1
        refused = await gateway.chat(model="any/d")
        assert refused.status_code == 503
        await table.close_unused()
        for endpoint in table.endpoints:
            endpoint.in_flight -= 1


def test_without_a_file_each_vendor_whose_key_is_set_is_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Beside the local model; the key is not in the settings."""
    one = backends.Usual("acme", "openai", "ACME_KEY", {})
    other = backends.Usual("zeta", "openai", "ZETA_KEY", {})
    monkeypatch.setattr(backends, "usual", lambda: (one, other))
    monkeypatch.setattr("backends.openai.check", lambda config: None)
    monkeypatch.setenv("ACME_KEY", "sk-canary")
    monkeypatch.delenv("ZETA_KEY", raising=False)
    given = config.load(None)
    assert [model.id for model in given.models] == ["local/smollm2-135m", "acme/*"]
    assert "canary" not in repr(given)
    assert given.models[1].named("acme/gpt-4o") is not None


def test_vendors_are_usual_where_address_key_and_prices_are_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From the constants of a kind's module, and from the rows of quirks."""
    monkeypatch.undo()
    rows = {
        "acme": Vendor(base_url="https://api.acme.example/v1", key_env="ACME_KEY", prices="openai"),
        "own": Vendor(key_env="OWN_KEY", prices="openai"),
        "unpriced": Vendor(base_url="https://x.example/v1", key_env="X_KEY"),
    }
    monkeypatch.setattr(backends, "vendor_names", lambda: tuple(rows))
    monkeypatch.setattr(backends, "vendor", rows.__getitem__)
    backends.usual.cache_clear()
    try:
        found = {vendor.name: vendor for vendor in backends.usual()}
    finally:
        backends.usual.cache_clear()
    assert found["acme"] == backends.Usual("acme", "openai", "ACME_KEY", {"vendor": "acme"})
    assert not {"own", "unpriced"} & set(found)
    assert backends.price_list("openai", {"vendor": "acme"}) == "openai"
    assert backends.price_list("fake", {}) == ""
