"""From logits to a token.

The order is vLLM's: temperature, top_k, top_p, min_p, draw. A draw depends on the request's seed,
on the position and on the logits, and on nothing else, so the same seed gives the same text
whatever runs beside it.
"""

from __future__ import annotations

import hashlib

import torch

from local_engine.types import SamplingParams


class SamplingError(ValueError):
    """The logits hold no distribution: a NaN or an infinity came out of the model."""


class Sampler:
    """Draws tokens, with one generator that is set anew for each draw.

    Not for use by several threads.
    """

    def __init__(self) -> None:
        """Make the generator; its own state never matters."""
        self._generator = torch.Generator(device="cpu")

    def sample(self, logits: torch.Tensor, params: SamplingParams, position: int) -> int:
        """Return the next token.

        Args:
            logits: (vocab,), any float type, any device.
            params: How to choose.
            position: How many tokens the request has sampled before; decides the draw together with
                the seed.

        Raises:
            SamplingError: A logit is NaN or plus infinity, or all are minus infinity.
        """
        logits = logits.float()
        best, best_id = logits.max(dim=-1)
        if not torch.isfinite(best):
            raise SamplingError("the model's output is not a number")
        if params.temperature == 0:
            return int(best_id)
        probabilities, token_ids = distribution(logits, params)
        self._generator.manual_seed(_mix(params.seed, position))
        point = torch.rand((), generator=self._generator, dtype=torch.float64).item()
        reached = probabilities.double().cumsum(dim=0)  # (kept,)
        # Sums of rounded numbers may end a little below 1; scaling the point keeps it inside.
        index = int(torch.searchsorted(reached, point * reached[-1], right=True))
        return int(token_ids[min(index, len(token_ids) - 1)])


def distribution(logits: torch.Tensor, params: SamplingParams) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what is drawn from: probabilities and their token ids, both (kept,).

    Args:
        logits: (vocab,), float32, finite at their maximum.
        params: A temperature above 0, and the cuts.
    """
    # Against the maximum, so that a tiny temperature gives minus infinity and not NaN.
    scaled = (logits - logits.max()) / params.temperature
    if not params.top_k and params.top_p >= 1 and not params.min_p:
        return torch.softmax(scaled, dim=-1), torch.arange(len(scaled), device=scaled.device)
    count = min(params.top_k or len(scaled), len(scaled))
    values, token_ids = torch.topk(scaled, count) if count < len(scaled) else _sort(scaled)
    probabilities = torch.softmax(values, dim=-1)
    if params.top_p < 1:
        # A token stays while those before it have not reached top_p; so the first always does.
        before = probabilities.cumsum(dim=0) - probabilities
        kept = max(1, int((before < params.top_p).sum()))
        probabilities, token_ids = probabilities[:kept], token_ids[:kept]
    if params.min_p:
        kept = int((probabilities >= params.min_p * probabilities[0]).sum())
        probabilities, token_ids = probabilities[:kept], token_ids[:kept]
    return probabilities / probabilities.sum(), token_ids


def _sort(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    ordered = torch.sort(values, descending=True, stable=True)
    return ordered.values, ordered.indices


def _mix(seed: int, position: int) -> int:
    """Return 64 bits that differ for every seed and position, neighbors included."""
    words = (seed % 2**64).to_bytes(8, "little") + position.to_bytes(8, "little")
    return int.from_bytes(hashlib.blake2b(words, digest_size=8).digest(), "little")
