"""The configuration: every fault names the file, the path, and what to write instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway import config
from gateway.endpoint_settings import EndpointSettings
from gateway.tokenizer import encodings
from tests.gateway_harness import fake, model

ENDPOINT = fake(tokens=1)


def faults(document: Any, tmp_path: Path) -> str:
    """Return the message that a file with this document gets."""
    path = tmp_path / "tollway.yaml"
    path.write_text(yaml.safe_dump(document) if not isinstance(document, str) else document)
    with pytest.raises(config.ConfigError) as caught:
        config.load(path)
    message = str(caught.value)
    assert all(line.startswith(f"{path}: ") for line in message.splitlines()), message
    return message.replace(f"{path}: ", "")


def changed(**changes: Any) -> dict[str, Any]:
    """A good configuration with its endpoint changed."""
    return {"models": [model(ENDPOINT | changes)]}


LATER = [
    ({"limits": {"rpm": 5}}, "limits of an endpoint are not offered"),
    ({"labels": {"region": "eu"}}, "labels are not offered"),
]
LATER_OF_MODELS = [
    ({"hedge": {"budget": "0.02"}}, "hedging is not offered"),
    ({"sla": {"first_token_ms": 1500}}, "latency SLAs are not offered"),
    ({"continuation": True}, "continuation after content is not offered"),
    (
        {"strategy": "balanced"},
        "balanced is not offered in this version; write ordered or cheapest",
    ),
    ({"strategy": "fastest"}, "fastest is not offered in this version; write ordered or cheapest"),
]


@pytest.mark.parametrize(("keys", "words"), LATER)
def test_endpoint_keys_of_later_versions_are_refused_by_name(
    keys: dict[str, Any], words: str, tmp_path: Path
) -> None:
    """A key that does nothing yet is never silently accepted."""
    message = faults(changed(**keys), tmp_path)
    assert message.startswith("models.0.endpoints.0")
    assert words in message


@pytest.mark.parametrize(("keys", "words"), LATER_OF_MODELS)
def test_model_keys_of_later_versions_are_refused_by_name(
    keys: dict[str, Any], words: str, tmp_path: Path
) -> None:
    """The same for models."""
    message = faults({"models": [model(ENDPOINT, **keys)]}, tmp_path)
    assert message.startswith("models.0")
    assert words in message


FAULTS: list[tuple[Any, str]] = [
    ("models: [", "is not YAML"),
    ("just text", "the top level must be a mapping with 'models'"),
    ({}, "models: is required"),
    ({"models": []}, "models: "),
    ({"models": [{"id": "m", "endpoints": []}]}, "models.0.endpoints: "),
    ({"models": [model(ENDPOINT)], "modells": 1}, "modells: unknown key; did you mean 'models'?"),
    (changed(prize=1), "models.0.endpoints.0.prize: unknown key; did you mean 'price'?"),
    ({"models": [model({"backend": "fake"})]}, "'price': is required: {prompt: USD per million"),
    (changed(model="*"), "needs an 'id' that ends with '*'"),
    ({"models": [model(ENDPOINT, id="a*b")]}, "one '*', and at its end"),
    ({"models": [model(ENDPOINT, id="a/*", aliases=["b"])]}, "a wildcard has none"),
    ({"models": [model(ENDPOINT, expires="soon")]}, "models.0.expires: "),
    (changed(credentials=[{}]), "credentials.0: give 'api_key_env' or 'api_key_file', and only"),
    (changed(credentials=[{"api_key_env": "A"}], api_key_env="B"), "give one of them"),
    (
        changed(price={"prompt": 1, "completion": 1, "tiers": [{"prompt": 1, "completion": 1}]}),
        "tiers.0.above_prompt_tokens: is required",
    ),
    (changed(price={"prompt": "1"}), "models.0.endpoints.0.price.completion: is required"),
    (changed(price={"prompt": "0.0000001", "completion": 0}), "price.prompt: 1E-7 must be USD"),
    (changed(price={"prompt": "-1", "completion": 0}), "price.prompt: -1 must be USD per million"),
    (changed(price={"prompt": ".inf", "completion": 0}), "models.0.endpoints.0.price.prompt: "),
    (changed(price={"prompt": "cheap", "completion": 0}), "models.0.endpoints.0.price.prompt: "),
    (changed(backend="openal"), "'backend': no kind 'openal'; known are "),
    (changed(backend="openai", script={}), "'base_url': needed here, such as https://"),
    (
        changed(backend="openai", script={}, base_url="http://x/v1"),
        "'model': needed here: the upstream's name",
    ),
    (changed(backend="local", script={}), "'weights': needed here"),
    (changed(script={"tokenz": 1}), "the fake's script: Object contains unknown field `tokenz`"),
    (changed(capabilities={"telepathy": True}), "'capabilities.telepathy': unknown; known are"),
    (changed(api_key_env="A", api_key_file="b"), "give one of them"),
    (changed(retries=-1), "models.0.endpoints.0.retries: "),
    (changed(timeouts={"stall_ms": 0}), "models.0.endpoints.0.timeouts.stall_ms: "),
    (changed(provider="two words"), "models.0.endpoints.0.provider: "),
    ({"models": [model(ENDPOINT)], "markup": "0.00001"}, "with at most 4 decimals"),
    ({"models": [model(ENDPOINT, markup="-0.1")]}, "models.0.markup: -0.1 must be a fraction"),
    ({"models": [model(ENDPOINT), model(ENDPOINT)]}, "the name 'demo/fake' is used twice"),
    (
        {"models": [model(ENDPOINT), model(ENDPOINT, id="b", aliases=["demo/fake"])]},
        "the name 'demo/fake' is used twice",
    ),
    ({"models": [model(ENDPOINT)], "redis": {"url": "http://x"}}, "redis: 'url': write embedded"),
    (
        {"models": [model(ENDPOINT)], "redis": {"url": "redis+cluster://x"}},
        "clusters are not offered in this version",
    ),
    ({"models": [model(ENDPOINT)], "accounts": {"a": {"rpm": 0}}}, "accounts.a.rpm: "),
]


@pytest.mark.parametrize(("document", "words"), FAULTS)
def test_every_fault_names_file_path_and_remedy(document: Any, words: str, tmp_path: Path) -> None:
    """One line a fault, so that a file is mended in one round."""
    assert words in faults(document, tmp_path)


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    """Not only the first."""
    document = changed(retries=-1, prize=2) | {"markup": "much"}
    assert len(faults(document, tmp_path).splitlines()) == 3


def test_a_missing_or_unreadable_file_is_named(tmp_path: Path) -> None:
    """With the system's reason."""
    missing = tmp_path / "nothing.yaml"
    with pytest.raises(config.ConfigError, match="cannot be read: No such file"):
        config.load(missing)
    missing.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(config.ConfigError, match="is not UTF-8"):
        config.load(missing)


def test_prices_are_exact_however_they_are_written(tmp_path: Path) -> None:
    """A YAML number and a text give the same integer; a JSON file is a YAML file."""
    path = tmp_path / "c.yaml"
    for written in ("0.1", '"0.1"', "1e-1", "0.100000"):
        path.write_text(
            f'{{"models": [{{"id": "m", "endpoints": [{{"backend": "fake", '
            f'"price": {{"prompt": {written}, "completion": 15}}}}]}}], "markup": 0.07}}'
        )
        given = config.load(path)
        price = given.models[0].endpoints[0].price.price()
        assert (price.prompt, price.completion) == (100_000, 15_000_000)
        assert given.markup_bp(given.models[0]) == 700


def test_without_a_file_the_small_local_model_is_served() -> None:
    """At the documented price, in order of cost, with no limits."""
    given = config.load(None)
    (only,) = given.models
    (endpoint,) = only.endpoints
    assert (only.id, only.strategy, endpoint.backend) == ("local/smollm2-135m", "cheapest", "local")
    price = endpoint.price.price()
    assert (price.prompt, price.completion) == (10_000, 20_000)
    assert (endpoint.first_token_s, endpoint.stall_s) == (120, 180)
    assert given.redis.url == "embedded"


def test_silence_limits_depend_on_what_answers() -> None:
    """10 and 15 s; 120 and 180 s where the model reasons or the backend is local; or as written."""
    plain = EndpointSettings.model_validate(ENDPOINT)
    assert (plain.first_token_s, plain.stall_s) == (10, 15)
    reasons = EndpointSettings.model_validate(ENDPOINT | {"capabilities": {"reasoning": True}})
    assert (reasons.first_token_s, reasons.stall_s) == (120, 180)
    own = EndpointSettings.model_validate(ENDPOINT | {"timeouts": {"first_token_ms": 2500}})
    assert (own.first_token_s, own.stall_s) == (2.5, 15)


def test_secrets_come_from_variables_and_files_only_when_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing one is named with the endpoint; the value is in no error and no repr."""
    source = tmp_path / "c.yaml"
    monkeypatch.delenv("ACME_KEY", raising=False)
    by_name = EndpointSettings.model_validate(ENDPOINT | {"api_key_env": "ACME_KEY"})
    with pytest.raises(config.ConfigError, match="the variable ACME_KEY is not set; export it"):
        config.resolve_keys(by_name, source)
    monkeypatch.setenv("ACME_KEY", "sk-canary")
    (resolved,) = config.resolve_keys(by_name, source)
    assert resolved() == "sk-canary"
    assert "canary" not in repr(resolved)
    by_file = EndpointSettings.model_validate(ENDPOINT | {"api_key_file": "secret"})
    with pytest.raises(config.ConfigError, match="api_key_file"):
        config.resolve_keys(by_file, source)
    (tmp_path / "secret").write_text("sk-file\n")  # relative to the configuration's folder
    assert config.resolve_keys(by_file, source)[0]() == "sk-file"
    assert config.resolve_keys(EndpointSettings.model_validate(ENDPOINT), source) == ()


def test_a_pasted_key_is_trimmed_and_an_unusable_one_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A space at the end is a slip; a line break inside is an error that does not quote it."""
    openai = {"backend": "openai", "base_url": "https://api.example.com/v1", "model": "x"}
    given = {**openai, "price": ENDPOINT["price"], "api_key_env": "K_FOR_TEST"}
    endpoint = EndpointSettings.model_validate(given)
    monkeypatch.setenv("K_FOR_TEST", "sk-secret \n")
    assert config.resolve_keys(endpoint, None)[0]() == "sk-secret"
    for broken in ("sk-se cret", "sk-se\ncret", "sk-sécret"):
        monkeypatch.setenv("K_FOR_TEST", broken)
        with pytest.raises(config.ConfigError) as caught:
            config.resolve_keys(endpoint, None)
        assert broken not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("models:\n  - {id: a, id: b, endpoints: []}\n", "written twice"),
        ("server: {drain_seconds: .inf}\nmodels: [MODEL]\n", "finite"),
        ("ledger: {hold_ttl_s: 1, progress_s: 5}\nmodels: [MODEL]\n", "hold_ttl_s"),
        ("models:\n  - {id: m, endpoints: [LOCAL, LOCAL]}\n", "one engine"),
        (
            "models:\n  - {id: m, endpoints: [{backend: local, model: x, weights: w, PRICE}]}",
            "name",
        ),
        (
            "models:\n  - {id: m, endpoints: [{backend: fake, script: {tokens: -5}, PRICE}]}",
            "-5|>= 0",
        ),
    ],
)
def test_mistakes_that_would_only_show_at_run_time_are_found(
    text: str, words: str, tmp_path: Path
) -> None:
    """Each is refused with a word on what is wrong."""
    price = "price: {prompt: 1, completion: 1}"
    local = f"{{backend: local, weights: w, {price}}}"
    text = text.replace("MODEL", f"{{id: m, endpoints: [{{backend: fake, {price}}}]}}")
    file = tmp_path / "t.yaml"
    file.write_text(text.replace("LOCAL", local).replace("PRICE", price))
    with pytest.raises(config.ConfigError, match=words):
        config.load(file)


@pytest.mark.parametrize("name", ["gpt-5", "file:vocabulary.txt", "", "o200k"])
def test_a_tokenizer_that_is_none_is_refused_with_what_may_be_written(
    name: str, tmp_path: Path
) -> None:
    """By its name alone, before anything is loaded."""
    message = faults(changed(tokenizer=name), tmp_path)
    assert "tokenizer: write one of cl100k_base" in message


def test_a_tokenizers_file_lies_beside_the_configuration_and_must_be_there(tmp_path: Path) -> None:
    """Whole paths go to the process that counts; what is missing is found before the start."""
    path = tmp_path / "tollway.yaml"
    path.write_text(yaml.safe_dump(changed(tokenizer="file:small/tokenizer.json")))
    settings = config.load(path)
    endpoint = settings.models[0].endpoints[0]
    found = config.tokenizer(endpoint, path)
    assert found == f"file:{tmp_path}/small/tokenizer.json"
    with pytest.raises(config.ConfigError, match=r"tokenizer: .*small/tokenizer.json is not there"):
        config.check_endpoints(settings, path)
    plain = config.load(None).models[0].endpoints[0]
    assert config.tokenizer(plain, None) == ""


@pytest.mark.parametrize(
    ("name", "library", "package"),
    [
        ("o200k_base", "bpe_openai", "tollway"),
        ("file:tokenizer.json", "tokenizers", r"tollway\[local\]"),
    ],
)
def test_a_tokenizer_whose_library_is_missing_names_what_to_install(
    name: str, library: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at the first request that needs it."""
    path = tmp_path / "tollway.yaml"
    (tmp_path / "tokenizer.json").write_text("{}")
    path.write_text(yaml.safe_dump(changed(tokenizer=name)))
    monkeypatch.setattr(encodings, "find_spec", lambda wanted: None if wanted == library else 1)
    with pytest.raises(config.ConfigError, match=f"pip install '{package}'"):
        config.check_endpoints(config.load(path), path)


def test_a_key_that_stands_where_its_variable_should_is_not_repeated(tmp_path: Path) -> None:
    """Whoever reads the log would have it."""
    for place in ({"api_key_env": "sk-secret"}, {"credentials": [{"api_key_env": "sk-secret"}]}):
        words = faults(changed(**place), tmp_path)
        assert "never the key itself" in words
        assert "sk-secret" not in words


def test_a_file_that_is_nested_too_deep_is_an_error_like_others(tmp_path: Path) -> None:
    """No trace of our own."""
    assert "nested too deep" in faults("[" * 3000, tmp_path)
