"""Loads a folder in Hugging Face's format: model, tokenizer, and what the engine must know of them.

Nothing is fetched and no code of the folder is run.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from local_engine.errors import LoadError


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to run.

    Attributes:
        model: In evaluation mode, on its device.
        tokenizer: Fast, that is, one that stands on the `tokenizers` library.
        window_tokens: The most tokens of prompt and answer together.
        eos_token_ids: The tokens that end an answer.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    window_tokens: int
    eos_token_ids: frozenset[int]


def load(weights: Path) -> LoadedModel:
    """Load model and tokenizer; blocks for seconds, or for minutes with large weights.

    fp32 on a CPU, where narrower types are slower without hardware for them; bf16 on CUDA where
    there is a device.

    Raises:
        LoadError: The folder does not hold a causal language model with a fast tokenizer.
    """
    cuda = torch.cuda.is_available()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            weights, local_files_only=True, trust_remote_code=False
        )
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            weights,
            dtype=torch.bfloat16 if cuda else torch.float32,
            local_files_only=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise LoadError(f"cannot load {weights}: {first_line}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise LoadError(f"cannot serve {weights}: its tokenizer has no tokenizer.json")
    device = torch.device("cuda" if cuda else "cpu")
    torch.nn.Module.to(model, device)
    model.train(False)
    # The first forward sets up kernels and buffers; better now than in someone's first token.
    with torch.inference_mode():
        model(input_ids=torch.tensor([[0, 0]], device=model.device))
    return describe(model, tokenizer)


def describe(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> LoadedModel:
    """Gather what the engine must know of a model that is in memory.

    Raises:
        LoadError: The model does not say how many positions it has.
    """
    window_tokens = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(window_tokens, int):
        raise LoadError("cannot serve this model: its config has no max_position_embeddings")
    ends: set[int] = set()
    for value in (model.generation_config.eos_token_id, tokenizer.eos_token_id):
        if isinstance(value, Iterable):
            ends.update(value)
        elif value is not None:
            ends.add(value)
    return LoadedModel(model, tokenizer, window_tokens, frozenset(ends))
