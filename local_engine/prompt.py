"""From messages to prompt tokens, and to a request that fits the window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from local_engine.errors import RequestRefused
from local_engine.params import ChatParams, Message
from local_engine.types import SamplingParams

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class PromptReader:
    """Applies the model's chat template and tokenizer. Not for use by several threads at once.

    Args:
        tokenizer: The model's; its chat template is run in transformers' sandbox.
        window_tokens: The most tokens of prompt and answer together.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, window_tokens: int) -> None:
        """Take the tokenizer over; nothing else may encode with it."""
        self._tokenizer: Any = tokenizer
        self._window_tokens = window_tokens

    def read(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Return the prompt's token ids; blocks, up to some tenths of a second for a long prompt.

        Raises:
            RequestRefused: 400; the model has no chat template, or its template refuses these
                messages.
        """
        if not self._tokenizer.chat_template:
            raise RequestRefused(
                "this model has no chat template, so it cannot answer chat requests",
                param="messages",
                code="no_chat_template",
            )
        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            text = self._tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:
            raise RequestRefused(
                f"the model's chat template refuses these messages: {error}", param="messages"
            ) from error
        # The template has written the special tokens itself.
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def fit(
        self, chat: ChatParams, num_prompt_tokens: int, draw_seed: Callable[[], int]
    ) -> SamplingParams:
        """Return how to sample, with the token limit and the seed settled.

        Raises:
            RequestRefused: 400 `context_length_exceeded`; prompt and answer do not fit the window.
        """
        room = self._window_tokens - num_prompt_tokens
        max_tokens = room if chat.max_tokens is None else chat.max_tokens
        if max_tokens > room or room < 1:
            asked = "" if chat.max_tokens is None else f" and {chat.max_tokens} for the answer"
            raise RequestRefused(
                f"the model's context is {self._window_tokens} tokens; the messages take "
                f"{num_prompt_tokens}{asked}",
                param="messages" if room < 1 else "max_tokens",
                code="context_length_exceeded",
            )
        return SamplingParams(
            max_tokens=max_tokens,
            seed=draw_seed() if chat.seed is None else chat.seed,
            temperature=chat.temperature,
            top_k=chat.top_k,
            top_p=chat.top_p,
            min_p=chat.min_p,
            stop=chat.stop,
        )
