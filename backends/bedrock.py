"""Amazon Bedrock: every model by ConverseStream, Anthropic's also by their own Messages wire."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, Literal
from urllib.parse import quote

import msgspec

from backends.answer_stream import AnswerStream
from backends.aws_auth import aws_auth, aws_url
from backends.base import BackendConfig, Capabilities
from backends.transport import Post, Transport
from backends.types import ChatRequest
from backends.wire import bedrock_invoke, bedrock_request
from backends.wire.bedrock_stream import ConverseDecoder
from backends.wire.decoder import AnswerDecoder

PRICES = "aws"
"""Its section in the table of list prices."""


class Options(msgspec.Struct, forbid_unknown_fields=True):
    """What only this kind knows."""

    region: str = ""
    """Such as ``us-east-1``; needed where ``base_url`` does not say where to ask."""

    api: Literal["converse", "invoke"] = "converse"
    """``invoke`` sends Anthropic's own body, to Anthropic's models only."""

    adaptive_thinking: bool = False
    """Anthropic's newest models take a level of effort instead of a budget of tokens."""

    maker: Literal["", "anthropic", "amazon"] = ""
    """Who made the model, where its id does not say so, as that of an inference profile."""


def check(config: BackendConfig) -> None:
    """Check what can be checked without secrets.

    Raises:
        ValueError: there is no model or no place to ask, or ``invoke`` is not for the model.
    """
    options = msgspec.convert(dict(config.options), Options)
    if not config.model:
        raise ValueError("'model': needed here: a model id, an inference profile's, or an ARN")
    if not (options.region or config.base_url):
        raise ValueError("'region': needed here, such as us-east-1")
    maker = options.maker or bedrock_request.maker_of(config.model)
    if options.api == "invoke" and maker != "anthropic":
        raise ValueError(
            "'api': 'invoke' is for Anthropic's models; leave it out, or write "
            "'maker: anthropic' where the model's id does not say so"
        )


def build(config: BackendConfig) -> BedrockBackend:
    """Build a backend; its credentials are looked up now.

    Raises:
        ValueError: see ``check``; or there are no credentials.
    """
    check(config)
    return BedrockBackend(config)


class BedrockBackend:
    """One model of one region."""

    def __init__(self, config: BackendConfig) -> None:
        """Prepare; nothing connects yet."""
        options = msgspec.convert(dict(config.options), Options)
        base_url = config.base_url or aws_url("bedrock-runtime", options.region)
        config = dataclasses.replace(config, base_url=base_url)
        self._transport = Transport(config)
        self._auth = aws_auth(config, service="bedrock", region=options.region)
        self._path = f"/model/{quote(config.model, safe='')}/"
        self._encode: Callable[..., dict[str, Any]]
        self._decoder: Callable[[], AnswerDecoder]
        more: dict[str, Any] = {}
        if options.api == "invoke":
            self._path += "invoke-with-response-stream"
            self._decoder = bedrock_invoke.InvokeDecoder
            self._encode, fields = bedrock_invoke.encode_request, bedrock_invoke.FIELDS
        else:
            self._path += "converse-stream"
            maker = options.maker or bedrock_request.maker_of(config.model)
            self._decoder, more = ConverseDecoder, {"maker": maker}
            self._encode, fields = bedrock_request.encode_request, bedrock_request.FIELDS
            if maker == "anthropic":
                fields |= bedrock_request.ANTHROPIC_FIELDS
        self.capabilities = Capabilities(fields=fields)
        self._encode = partial(
            self._encode,
            model=config.model,
            options_key=config.options_key,
            adaptive=options.adaptive_thinking,
            **more,
        )

    def stream(self, request: ChatRequest, *, deadline: float) -> AnswerStream:
        """Ask for a streamed answer; see ``backends.base.Backend.stream``."""
        del deadline  # the dispatcher's guard covers it; HTTP has no field for it
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/vnd.amazon.eventstream",
            "Accept-Encoding": "identity",
            "X-Request-Id": request.request_id,
        }
        call = Post(self._path, headers, msgspec.json.encode(self._encode(request)))
        return AnswerStream(self._transport, call, self._decoder(), self._auth)

    async def aclose(self) -> None:
        """Close idle connections."""
        await self._transport.aclose()
