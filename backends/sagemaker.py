"""Amazon SageMaker: a container behind an endpoint's name, with OpenAI's wire or TGI's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal
from urllib.parse import quote

import msgspec

from backends.answer_stream import AnswerStream
from backends.aws_auth import aws_auth, aws_url
from backends.base import BackendConfig, Capabilities
from backends.transport import Post, Transport
from backends.types import ChatRequest
from backends.wire import openai_request, sagemaker_tgi
from backends.wire.decoder import AnswerDecoder
from backends.wire.sagemaker_stream import ChatPartsDecoder


class Options(msgspec.Struct, forbid_unknown_fields=True):
    """What only this kind knows."""

    region: str = ""
    """Such as ``us-east-1``; needed where ``base_url`` does not say where to ask."""

    payload: Literal["openai", "tgi"] = "openai"
    """What the container speaks: OpenAI's chat (vLLM, LMI, TGI 2 and later), or TGI's own."""


def check(config: BackendConfig) -> None:
    """Check what can be checked without secrets.

    Raises:
        ValueError: there is no endpoint's name, or no place to ask.
    """
    if not config.model:
        raise ValueError("'model': needed here: the name of the SageMaker endpoint")
    if not (config.options.get("region") or config.base_url):
        raise ValueError("'region': needed here, such as us-east-1")


def build(config: BackendConfig) -> SageMakerBackend:
    """Build a backend; its credentials are looked up now.

    Raises:
        ValueError: see ``check``; or there are no credentials.
    """
    check(config)
    return SageMakerBackend(config)


class SageMakerBackend:
    """One endpoint of one region."""

    def __init__(self, config: BackendConfig) -> None:
        """Prepare; nothing connects yet."""
        options = msgspec.convert(dict(config.options), Options)
        base_url = config.base_url or aws_url("runtime.sagemaker", options.region)
        config = dataclasses.replace(config, base_url=base_url)
        self._config = config
        self._transport = Transport(config)
        self._auth = aws_auth(config, service="sagemaker", region=options.region)
        self._path = f"/endpoints/{quote(config.model, safe='')}/invocations-response-stream"
        self._encode: Callable[..., dict[str, Any]] = openai_request.encode_request
        self._decoder: Callable[[ChatRequest], AnswerDecoder] = lambda _: ChatPartsDecoder()
        self.capabilities = Capabilities(fields=openai_request.CHAT_FIELDS)
        if options.payload == "tgi":
            self._encode = sagemaker_tgi.encode_request
            self._decoder = lambda request: sagemaker_tgi.TGIPartsDecoder(request.stop)
            self.capabilities = Capabilities(fields=sagemaker_tgi.FIELDS)

    def stream(self, request: ChatRequest, *, deadline: float) -> AnswerStream:
        """Ask for a streamed answer; see ``backends.base.Backend.stream``."""
        del deadline  # the dispatcher's guard covers it; HTTP has no field for it
        body = self._encode(request, model=self._config.model, options_key=self._config.options_key)
        body.pop("model", None)  # the URL names the endpoint; a container knows its one model
        headers = {
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "X-Request-Id": request.request_id,
        }
        call = Post(self._path, headers, msgspec.json.encode(body))
        return AnswerStream(self._transport, call, self._decoder(request), self._auth)

    async def aclose(self) -> None:
        """Close idle connections."""
        await self._transport.aclose()
