"""The engine's words: what a request asks for, and what comes out of a step.

Everything here is frozen data without torch in it, so that it may cross from the event loop to the
engine's thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are chosen and when the text ends.

    Attributes:
        max_tokens: The most tokens that may be sampled, at least 1.
        seed: Together with the position it decides every draw; a request that names none is given a
            random one before it comes here, so that the engine itself holds no hidden randomness.
        temperature: 0 takes the likeliest token, always.
        top_k: The number of likeliest tokens to draw from; 0 is off.
        top_p: The share of probability to draw from; 1 is off.
        min_p: The least probability, as a share of the likeliest token's, to draw from; 0 is off.
        stop: Strings that end the text and are not part of it.
    """

    max_tokens: int
    seed: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt on its way through the engine.

    Attributes:
        request_id: Unique among the requests that the engine holds.
        prompt_tokens: The prompt's token ids, at least one.
        sampling: How to go on from there.
        account: Whose request it is, as the caller named it. Carried for the fair queue that is to
            come; admission is in order of arrival today.
        priority: The caller's class of service, lower is sooner, as in vLLM. Carried, like
            `account`.
        deadline_s: On the engine's clock; a request still queued then fails. None is never.
    """

    request_id: str
    prompt_tokens: tuple[int, ...]
    sampling: SamplingParams
    account: str = ""
    priority: int = 0
    deadline_s: float | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """The request ended well.

    `stop` is at an end token or a stop string, `length` at the token limit.
    """

    reason: FinishReason


@dataclass(frozen=True, slots=True)
class Failure:
    """The request ended without a whole answer.

    Attributes:
        status: The HTTP status that says the same; used when nothing has been sent yet.
        code: A stable word for programs.
        message: A sentence for people.
        retry_after_s: When another try may do better, in whole seconds.
    """

    status: int
    code: str
    message: str
    retry_after_s: int | None = None


End = Finish | Failure


@dataclass(frozen=True, slots=True)
class Output:
    """What one request gained: visible text, a running count, and at last its end.

    The first output of a request that is taken up has neither text nor end: it says that the prompt
    is being read. Exactly one output has an end, and none follows it.

    Attributes:
        request_id: Whose output it is.
        text: New visible text, perhaps empty.
        completion_tokens: Tokens sampled so far, the end-of-sequence token not counted.
        end: How the request ended, or None while it goes on.
    """

    request_id: str
    text: str
    completion_tokens: int
    end: End | None = None

    def then(self, later: Output) -> Output:
        """Return this output and a later one of the same request as one.

        Raises:
            ValueError: This output was the request's end.
        """
        if self.end is not None:
            raise ValueError(f"an output followed the end of request {self.request_id!r}")
        return Output(self.request_id, self.text + later.text, later.completion_tokens, later.end)
