"""The bytes that a client reads: OpenAI's chat completion, its chunks, and errors."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from local_engine.errors import RequestRefused

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Reply:
    """What all chunks of one answer share.

    Attributes:
        reply_id: The completion's id.
        model: The public name.
        created_s: Unix time.
        prompt_tokens: The prompt's length.
    """

    reply_id: str
    model: str
    created_s: int
    prompt_tokens: int

    def whole(self, text: str, finish_reason: str, completion_tokens: int) -> bytes:
        """Return the body of an answer that is not streamed."""
        message = {"role": "assistant", "content": text}
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": finish_reason,
        }
        return msgspec.json.encode(
            {
                **self.head("chat.completion"),
                "choices": [choice],
                "usage": self.usage(completion_tokens),
            }
        )

    def head(self, kind: str) -> dict[str, object]:
        """Return the fields that every object of this answer begins with."""
        return {
            "id": self.reply_id,
            "object": kind,
            "created": self.created_s,
            "model": self.model,
        }

    def usage(self, completion_tokens: int) -> dict[str, int]:
        """Return the usage when so many tokens have been sampled."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": self.prompt_tokens + completion_tokens,
        }


@dataclass(frozen=True, slots=True)
class ChunkWriter:
    """Writes the events of one streamed answer.

    Attributes:
        reply: What they share.
        include_usage: Whether a last chunk without choices tells the usage.
        continuous_usage: Whether every chunk does.
    """

    reply: Reply
    include_usage: bool
    continuous_usage: bool

    def start(self) -> bytes:
        """Return the first chunk: the role, and no text yet."""
        return self._choice({"role": "assistant", "content": ""}, None, 0)

    def text(self, text: str, completion_tokens: int) -> bytes:
        """Return a chunk of text."""
        return self._choice({"content": text}, None, completion_tokens)

    def end(self, finish_reason: str, completion_tokens: int) -> bytes:
        """Return all that follows the text of an answer that ended well."""
        last = self._choice({}, finish_reason, completion_tokens)
        if self.include_usage:
            last += self._event([], completion_tokens, with_usage=True)
        return last + DONE

    def _choice(
        self, delta: dict[str, str], finish_reason: str | None, completion_tokens: int
    ) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._event([choice], completion_tokens, with_usage=self.continuous_usage)

    def _event(
        self, choices: list[dict[str, object]], completion_tokens: int, *, with_usage: bool
    ) -> bytes:
        chunk = {**self.reply.head("chat.completion.chunk"), "choices": choices}
        if with_usage:
            chunk["usage"] = self.reply.usage(completion_tokens)
        elif self.include_usage:
            chunk["usage"] = None
        return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


def error_body(refused: RequestRefused) -> bytes:
    """Return the JSON of an error."""
    return msgspec.json.encode(
        {
            "error": {
                "message": refused.message,
                "type": _error_type(refused.status),
                "param": refused.param,
                "code": refused.code,
            }
        }
    )


def error_event(refused: RequestRefused) -> bytes:
    """Return the last line of a stream that failed; no `[DONE]` follows it."""
    return b"data: " + error_body(refused) + b"\n\n"


def error_headers(refused: RequestRefused) -> list[tuple[bytes, bytes]]:
    """Return an error's own headers."""
    if refused.retry_after_s is None:
        return []
    return [(b"retry-after", str(refused.retry_after_s).encode())]


def _error_type(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"
