"""Runs the model for the sequences of a step, one after the other, each with its own cache.

This is the slow and sure way: Hugging Face's own model code with its own cache. It serves models
that a paged cache cannot, and is what faster ways are compared with.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from transformers import DynamicCache, PreTrainedModel

from local_engine.scheduler import Work


class Runner(Protocol):
    """The seam to the model: work in, logits out. The engine knows nothing else of it."""

    def forward(self, batch: Sequence[Work]) -> list[torch.Tensor]:
        """Compute every work's tokens; return for each the logits of its last one, (vocab,).

        Raises whatever the model raises. The sequences of the batch are then in no known state, and
        the caller releases them.
        """

    def release(self, request_id: str) -> None:
        """Free what is held for a sequence; one that holds nothing is no error."""


class CachedRunner:
    """One `DynamicCache` for each sequence, batch 1."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Start without a cache."""
        self._model = model
        self._caches: dict[str, DynamicCache] = {}
        takes = inspect.signature(model.forward).parameters
        # The last position is all that is sampled; for a long chunk that saves most of the output
        # head.
        self._extra: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}

    @property
    def num_caches(self) -> int:
        """How many sequences hold memory."""
        return len(self._caches)

    def forward(self, batch: Sequence[Work]) -> list[torch.Tensor]:
        """See `Runner.forward`."""
        return [self._forward_one(work) for work in batch]

    def release(self, request_id: str) -> None:
        """See `Runner.release`."""
        self._caches.pop(request_id, None)

    @torch.inference_mode()
    def _forward_one(self, work: Work) -> torch.Tensor:
        request_id = work.sequence.request.request_id
        cache = self._caches.get(request_id)
        if cache is None:
            cache = self._caches[request_id] = DynamicCache(config=self._model.config)
        token_ids = torch.tensor([work.token_ids], device=self._model.device)  # (1, count)
        result = self._model(
            input_ids=token_ids, past_key_values=cache, use_cache=True, **self._extra
        )
        logits: torch.Tensor = result.logits[0, -1]  # (vocab,)
        return logits
