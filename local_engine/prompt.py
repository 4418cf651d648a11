"""From messages to prompt tokens, and to a request that fits the window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from local_engine.errors import RequestRefused
from local_engine.params import ChatParams, Message
from local_engine.types import SamplingParams

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class PromptReader:
    """Applies the model's chat template and tokenizer, on any thread, on several at once.

    Args:
        tokenizer: The model's; its chat template is run in transformers' sandbox.
        window_tokens: The most tokens of prompt and answer together.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, window_tokens: int) -> None:
        """Copy the tokenizer's encoding part, and learn how much text a token can stand for."""
        self._tokenizer: Any = tokenizer
        # A copy that nobody sets up anew, so that threads may share it.
        self._encoder = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._encoder.no_truncation()
        self._encoder.no_padding()
        self._window_tokens = window_tokens
        self._most_bytes = window_tokens * _longest_token_bytes(self._encoder)

    def check_size(self, messages: Sequence[Message]) -> None:
        """Refuse at once what no tokenizing could fit into the window.

        Every token stands for so many bytes at most, and every message takes at least one. What a
        template or tokenizer would cut off is counted all the same.

        Raises:
            RequestRefused: 400 `context_length_exceeded`.
        """
        if len(messages) > self._window_tokens:
            raise self._too_long(f"there are {len(messages)} messages")
        self._check_bytes(sum(len(message.content.encode()) for message in messages))

    def read(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Return the prompt's token ids; blocks, up to some tenths of a second for a long prompt.

        Raises:
            RequestRefused: 400; the model has no chat template, its template refuses these
                messages, or makes too much of them for the window.
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
        self._check_bytes(len(text.encode()))
        # The template has written the special tokens itself. Only a batch lets other threads run.
        [encoding] = self._encoder.encode_batch([text], add_special_tokens=False)
        return tuple(encoding.ids)

    def fit(
        self,
        chat: ChatParams,
        num_prompt_tokens: int,
        draw_seed: Callable[[], int],
        max_output: int | None = None,
    ) -> SamplingParams:
        """Return how to sample, with the token limit and the seed settled.

        Args:
            chat: What was asked; its own token limit must fit beside the prompt.
            num_prompt_tokens: The prompt's length.
            draw_seed: Gives a seed where none is asked for.
            max_output: Ends the answer sooner where it is the least limit; need not fit.

        Raises:
            RequestRefused: 400 `context_length_exceeded`; prompt and answer do not fit the window.
        """
        room = self._window_tokens - num_prompt_tokens
        max_tokens = room if chat.max_tokens is None else chat.max_tokens
        if max_tokens > room or room < 1:
            asked = "" if chat.max_tokens is None else f" and {chat.max_tokens} for the answer"
            raise self._too_long(
                f"the messages take {num_prompt_tokens}{asked}",
                param="messages" if room < 1 else "max_tokens",
            )
        return SamplingParams(
            max_tokens=max_tokens if max_output is None else min(max_tokens, max_output),
            seed=draw_seed() if chat.seed is None else chat.seed,
            temperature=chat.temperature,
            top_k=chat.top_k,
            top_p=chat.top_p,
            min_p=chat.min_p,
            stop=chat.stop,
        )

    def _check_bytes(self, num_bytes: int) -> None:
        if num_bytes > self._most_bytes:
            raise self._too_long(
                f"the messages have {num_bytes} bytes, and {self._most_bytes} is the most that so "
                "many tokens can stand for"
            )

    def _too_long(self, why: str, param: str = "messages") -> RequestRefused:
        return RequestRefused(
            f"the model's context is {self._window_tokens} tokens; {why}",
            param=param,
            code="context_length_exceeded",
        )


def _longest_token_bytes(tokenizer: Tokenizer) -> int:
    """Return the most bytes of text that one token stands for, as a bound."""
    alone = [[token_id] for token_id in tokenizer.get_vocab().values()]
    texts = tokenizer.decode_batch(alone, skip_special_tokens=False)
    # Some decoders strip a space from the start of a text.
    return 1 + max(len(text.encode()) for text in texts)
