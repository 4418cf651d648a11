"""The tables of the pages say what the code does: neither may change alone."""

from __future__ import annotations

import importlib
import re
import tomllib
import typing
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import click
import msgspec
import pytest
from prometheus_client.metrics import MetricWrapperBase
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

import backends
from backends import fake
from backends.base import BackendConfig
from backends.vendors import names as vendor_names
from backends.vendors import vendor as row_of
from backends.wire import openai_request as wire
from backends.wire import responses_request
from gateway.app import NOT_OFFERED, create_routes
from gateway.cli import main
from gateway.cli.models import KEY_VARIABLE
from gateway.config import Environment
from gateway.endpoint_settings import CAPABILITIES, EndpointSettings, Frozen
from gateway.errors import _KINDS
from gateway.settings import Settings
from gateway.telemetry import Metrics
from gateway.wiring import WorkerConfig
from local_engine.metrics import EngineMetrics
from policies.ledger.base import JournalLine
from tests.docs.pages import ROOT, prose, read, rows, section, words
from tests.gateway_harness import PEPPER, model, settings
from tests.gateway_harness import fake as fake_endpoint

CONFIGURATION = "docs/configuration.md"
BACKENDS = "docs/backends.md"
COMMON = {"--json", "--config", "--data", "--help"}


def shown(default: Any) -> str:
    """Return a default as the page writes it."""
    if default is PydanticUndefined or default is msgspec.NODEFAULT:
        return "required"
    if default is None or default == "":
        return "none"
    if isinstance(default, Frozen):
        return "see below"
    if isinstance(default, bool):
        return "`true`" if default else "`false`"
    if isinstance(default, int | float | Decimal):
        return f"`{default:f}`".replace(".000000", "")
    if isinstance(default, tuple | frozenset):
        return "`[]`"
    return f"`{default}`"


def keys_of(kind: type[BaseModel], path: str = "") -> Iterator[tuple[str, str]]:
    """Return every key below a settings class with its default, as the page writes them."""
    for name, field in kind.model_fields.items():
        if issubclass(kind, Frozen) and name in kind.later:
            continue
        if (kind, name) == (EndpointSettings, "options"):
            continue  # gathered from keys that stand beside the others
        inner = model_in(field.annotation)
        yield f"{path}{name}", shown(field.get_default(call_default_factory=True))
        if inner is not None:
            origin = typing.get_origin(field.annotation)
            suffix = {tuple: "[].", dict: ".NAME."}.get(origin, ".")  # type: ignore[call-overload]
            yield from keys_of(inner, f"{path}{name}{suffix}")


def model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the settings class inside an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (model_in(part) for part in typing.get_args(annotation))
    return next((found for found in inner if found is not None), None)


def fields_of(kind: Any, prefix: str = "") -> dict[str, str]:
    """Return the fields of a msgspec struct with their defaults, as the page writes them."""
    found = {}
    for field in msgspec.structs.fields(kind):
        made = field.default_factory is not msgspec.NODEFAULT
        default = field.default_factory() if made else field.default
        found[f"{prefix}{field.name}"] = shown(default)
    return found


def key_table(text: str) -> dict[str, str]:
    """Return the keys of a page's tables with their defaults."""
    return {row[0].strip("`"): row[1] for row in rows(text) if len(row) == 3}


def test_every_key_of_the_configuration_is_documented_with_its_default() -> None:
    """The page has each key once, with the default that the settings have, and no other."""
    assert key_table(prose(CONFIGURATION)) == dict(keys_of(Settings))


SHIPPED = tuple(kind for kind in backends.kinds() if f"\n## `{kind}`\n" in prose(BACKENDS))
"""Kinds that the page tells of. Someone's own needs no page: to add one edits no file."""


@pytest.mark.parametrize("kind", SHIPPED)
def test_every_key_of_a_kind_is_documented_with_its_default(kind: str) -> None:
    """Its section has the keys that only it has and no other."""
    options = getattr(importlib.import_module(f"backends.{kind}"), "Options", None)
    wanted = fields_of(options) if options else {}
    assert key_table(section(BACKENDS, f"## `{kind}`")) == wanted


def test_what_is_known_of_a_kind_without_configuration_is_documented() -> None:
    """Which have list prices, and where their keys usually stand."""
    text = section(BACKENDS, "# Backends").partition("List prices are known")[2]
    modules = {kind: importlib.import_module(f"backends.{kind}") for kind in SHIPPED}
    priced = {kind for kind, module in modules.items() if hasattr(module, "PRICES")}
    variables = {module.KEY_ENV for module in modules.values() if hasattr(module, "KEY_ENV")}
    assert words(text.partition("The extras")[0]) - {"price"} == priced | variables


def test_every_key_of_a_script_is_documented_with_its_default() -> None:
    """What the fake does, and how it fails."""
    wanted = fields_of(fake.Script, "script.") | fields_of(fake.Failure, "script.fail.")
    assert key_table(section(BACKENDS, "### Scripts")) == wanted


def honored(column: str) -> frozenset[str]:
    """Return what an endpoint honors: of a kind, or of ``openai`` with an ``api``."""
    kind = column if column in backends.kinds() else "openai"
    config = BackendConfig(
        kind, "m", "http://127.0.0.1:9", options={} if kind == column else {"api": column}
    )
    module = importlib.import_module(f"backends.{kind}")
    if kind == "local":
        return frozenset(module.LocalBackend.capabilities.fields)
    return frozenset(module.build(config).capabilities.fields)


def test_what_each_kind_honors_is_in_one_table() -> None:
    """Every mark is true of the code, and nothing that reaches a model is missing."""
    pytest.importorskip("botocore", reason="Bedrock's adapter needs the extra 'aws'")
    text = section(BACKENDS, "## What each honors")
    head = next(line for line in text.splitlines() if line.startswith("| fields |"))
    columns = [cell.strip(" `") for cell in head.strip("|").split("|")][1:]
    assert {*columns, "vertex", "sagemaker"} == {*SHIPPED, "responses", "completions"}
    table: dict[str, set[str]] = {column: set() for column in columns}
    for names, *marks in rows(text):
        for column, mark in zip(columns, marks, strict=True):
            assert mark in ("", "x")
            table[column] |= words(names) if mark else set()
    native = ("completions.", "messages.", "responses.")
    for column in columns:
        known = {name for name in honored(column) if not name.startswith(native)}
        assert table[column] == known - {"user"}, column


def test_every_vendor_is_documented_as_its_row_says() -> None:
    """Name, other names, address, key variable, and whether it is in the price table."""
    table = {row[0].strip("`"): row[1:] for row in rows(section(BACKENDS, "## Vendors"))}
    assert set(table) <= set(vendor_names()), f"{BACKENDS}: a vendor that is not there"
    for name, (others, address, variable, listed) in table.items():
        row = row_of(name)
        assert words(others) == row.aliases, name
        assert address == (f"`{row.base_url}`" if row.base_url else "your own"), name
        assert variable.strip("`") == row.key_env, name
        assert listed == ("yes" if row.prices else ""), name


def test_what_the_configuration_does_not_offer_is_listed() -> None:
    """Keys that are refused as not offered yet stand in one list, and only there."""
    listed = words(section(CONFIGURATION, "## Not offered in this version"))
    refused = {key.rpartition(".")[2] for key in listed}
    classes = Frozen.__subclasses__()
    assert {key for kind in classes for key in kind.later} <= refused


def test_capabilities_backends_and_variables_are_named() -> None:
    """The words that a value may be are on the page."""
    known = words(prose(CONFIGURATION))
    groups = {row[0].strip("`"): words(row[1]) for row in rows(prose(CONFIGURATION))}
    for name, fields in CAPABILITIES.items():
        assert {field for field in fields if "." not in field} - {name} <= groups[name]
    assert set(SHIPPED) <= known
    variables = {f"TOLLWAY_{name.upper()}" for name in Environment.model_fields}
    table = {row[0].strip("`") for row in rows(section(CONFIGURATION, "## Environment"))}
    assert table == {*variables, KEY_VARIABLE}


def leaves(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """Return every command that is not hidden, by its full name."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for word in command.list_commands(context):
            inner = command.get_command(context, word)
            assert inner is not None
            yield from leaves(inner, f"{name} {word}")
    elif not command.hidden:
        yield name, command


COMMANDS = dict(leaves(main, "tollway"))


def test_every_command_has_a_section() -> None:
    """The page's headings are the commands that are there."""
    assert set(re.findall(r"^## `(.+)`$", read("docs/cli.md"), re.M)) == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_is_documented(name: str) -> None:
    """Each option in its command's section, and no other; arguments by name; defaults true."""
    text = section("docs/cli.md", f"## `{name}`")
    options = [p for p in COMMANDS[name].params if isinstance(p, click.Option)]
    known = {word for param in options for word in (*param.opts, *param.secondary_opts)}
    assert set(re.findall(r"`(--[a-z-]+)`", text)) - COMMON == known - COMMON
    for param in COMMANDS[name].params:
        if isinstance(param, click.Argument):
            assert f"`{param.make_metavar(click.Context(COMMANDS[name])).strip('[]')}`" in text
    defaults = {row[0].strip("`"): row[1].strip("`") for row in rows(text) if len(row) == 3}
    for option in options:
        if option.opts[0] in defaults and option.show_default:
            assert defaults[option.opts[0]] == str(option.default)
    everyone = section("docs/cli.md", "# Command line")
    assert all(f"`{option}" in everyone for option in COMMON)


def test_every_metric_of_a_worker_is_documented_with_its_labels() -> None:
    """Names, labels and types; and the engine's beside them."""
    found = {}
    for part in vars(Metrics()).values():
        metric = getattr(part, "metric", part)
        if not isinstance(metric, MetricWrapperBase):
            continue
        (family,) = metric.describe()
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = ",".join(metric._labelnames)
        found[f"{name}{{{labels}}}" if labels else name] = family.type
    table = {row[0].strip("`"): row[1] for row in rows(prose("docs/metrics.md"))}
    assert {name: kind for name, kind in table.items() if name.startswith("tollway")} == found
    engine = EngineMetrics("a/model")
    engine.watch("num_requests_running", "as the engine's service does", lambda: 0)
    engine.watch("num_requests_waiting", "as the engine's service does", lambda: 0)
    shown_types = re.findall(r"^# TYPE (vllm:\w+) (\w+)$", engine.render().decode(), re.M)
    theirs = {
        name.removesuffix("_total"): kind
        for name, kind in shown_types
        if not name.endswith("_created")
    }
    assert {name: kind for name, kind in table.items() if name.startswith("vllm")} == theirs


def test_every_route_is_documented() -> None:
    """What OpenAPI lists is what the table lists, and each route under its second prefix."""
    given = settings(model(fake_endpoint()))
    app = create_routes(WorkerConfig(given, None, "unix:///nowhere", PEPPER, {}))
    paths = app.openapi_schema.paths
    assert paths is not None
    served = {
        f"{method.upper()} {path}"
        for path, item in paths.items()
        for method in ("get", "post", "put", "patch", "delete")
        if getattr(item, method) is not None and not path.startswith("/api/")
    }
    table = {row[0].strip("`") for row in rows(section("docs/api.md", "# API"))}
    assert table == served | {"GET /schema"}
    assert all(f"/api{path}" in paths for path in paths if path.startswith("/v1/"))
    assert set(NOT_OFFERED) <= words(section("docs/api.md", "## Not built"))


def test_every_request_field_is_documented() -> None:
    """What the codec knows is on the page, and the fields that it sends on are in the table."""
    text = section("docs/api.md", "## Request fields")
    table = {word for row in rows(text) for word in words(row[0])}
    assert set(wire._TO_UPSTREAM) <= table
    assert table <= {*wire._TO_UPSTREAM, *wire.NOT_SENT}
    assert {*wire.NOT_SENT, *wire._LATER} <= words(text)


def test_every_field_of_a_responses_request_is_documented() -> None:
    """What is honored, what is accepted and not sent, what is refused."""
    named = words(section("docs/api.md", "## Responses"))
    assert set(responses_request._KNOWN) - {*wire._TO_UPSTREAM, "model", "models"} <= named


def test_every_error_status_is_documented() -> None:
    """Status, type and error type as the gateway writes them."""
    table = {
        int(row[0]): (row[1].strip("`"), row[2].strip("`"))
        for row in rows(section("docs/api.md", "## Errors"))
    }
    assert table == dict(_KINDS)


def test_every_field_of_a_journal_line_is_documented() -> None:
    """The fields of ``journal tail`` are the fields of the table."""
    table = {
        word for row in rows(section("docs/money.md", "## The journal")) for word in words(row[0])
    }
    assert table == set(JournalLine.__slots__)


def test_every_runtime_dependency_has_its_reason_in_the_readme() -> None:
    """Nothing is installed without a word why."""
    project = tomllib.loads(read("pyproject.toml"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["embedded"], *extras["local"]]
    wanted += [*extras["aws"], *extras["gcp"]]
    names = {re.split(r"[\[<>=~! ]", requirement)[0] for requirement in wanted}
    table = {row[0].strip("`") for row in rows(section("README.md", "## Dependencies"))}
    assert table == names


def test_every_decision_record_is_listed_and_whole() -> None:
    """One page each: dated name, status, context, decision, alternatives, consequences."""
    listed = read("deploy/README.md")
    for path in sorted((ROOT / "deploy/adr").glob("*.md")):
        assert re.fullmatch(r"\d{4}-\d{2}-\d{2}-[a-z0-9-]+\.md", path.name)
        assert f"(adr/{path.name})" in listed, f"deploy/README.md does not list {path.name}"
        text = path.read_text(encoding="utf-8")
        headings = re.findall(r"^## (.+)$", text, re.M)
        assert headings == ["Context", "Decision", "Alternatives", "Consequences"], path.name
        assert re.search(r"^Status: (proposed|accepted|superseded by .+)$", text, re.M), path.name
