"""The engine says what the model says on its own, and a seed holds among neighbors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from local_engine.loader import LoadedModel
from local_engine.params import Message
from local_engine.prompt import PromptReader
from local_engine.runner import CachedRunner
from local_engine.scheduler import Limits, Work
from local_engine.scheduler import Sequence as Running

Make = Callable[..., Any]
PROMPTS = ([5, 9, 100], [256, 20], [7] * 19, list(range(40, 90)), [200])


def generate(loaded: LoadedModel, prompt: Sequence[int], max_tokens: int) -> str:
    """Return what transformers' own greedy loop says."""
    made = loaded.model.generate(
        torch.tensor([list(prompt)]), max_new_tokens=max_tokens, do_sample=False
    )
    ids = made[0, len(prompt) :].tolist()
    text = loaded.tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=True)
    return text.rstrip("\ufffd")


@pytest.mark.parametrize(("chunk", "batch"), [(1, 1), (3, 1), (256, 1), (7, 4)])
def test_greedy_answers_are_those_of_generate(
    tiny: LoadedModel,
    make_model_engine: Make,
    make_request: Make,
    run_all: Make,
    chunk: int,
    batch: int,
) -> None:
    """However prompts are cut, whoever else runs, and whenever they arrive."""
    limits = Limits(max_running_requests=3, max_chunk_tokens=chunk, max_batch_sequences=batch)
    requests = [make_request(prompt, max_tokens=12) for prompt in PROMPTS]
    told = run_all(make_model_engine(tiny, limits), *requests[:2], late=requests[2:])
    for prompt, request in zip(PROMPTS, requests, strict=True):
        assert told[request.request_id].text == generate(tiny, prompt, 12)


def test_the_tiny_model_does_not_say_the_same_always(tiny: LoadedModel) -> None:
    """Otherwise parity with it would prove nothing."""
    answers = {generate(tiny, prompt, 12) for prompt in PROMPTS}
    assert len(answers) == len(PROMPTS)


@pytest.mark.parametrize("chunk", [1, 4, 50])
def test_logits_of_a_prompt_in_pieces_are_those_of_the_whole(
    tiny: LoadedModel, make_request: Make, chunk: int
) -> None:
    """Closer than one part in ten thousand."""
    prompt = PROMPTS[3]
    runner, sequence = CachedRunner(tiny.model), Running(make_request(prompt))
    row = torch.zeros(0)
    while sequence.num_computed < len(prompt):
        count = min(chunk, len(prompt) - sequence.num_computed)
        [row] = runner.forward([Work(sequence, count)])
        sequence.num_computed += count
    with torch.inference_mode():
        whole = tiny.model(torch.tensor([prompt])).logits[0, -1]
    assert torch.max(torch.abs(row - whole)).item() < 1e-4


def test_a_sequence_that_ends_frees_its_cache(
    tiny: LoadedModel, make_model_engine: Make, make_request: Make, run_all: Make
) -> None:
    """Nothing is left of it."""
    engine = make_model_engine(tiny)
    run_all(engine, make_request(max_tokens=3), make_request(max_tokens=5))
    assert engine._parts.runner.num_caches == 0


def test_a_seed_alone_is_the_seed_among_neighbors(
    tiny: LoadedModel, make_model_engine: Make, make_request: Make, run_all: Make
) -> None:
    """Neighbors with and without the same seed, in another order, change nothing."""
    asked = {"temperature": 1.3, "seed": 11, "max_tokens": 20, "top_p": 0.95}
    alone = run_all(make_model_engine(tiny), make_request(request_id="x", **asked))["x"].text
    others = [
        make_request([9, 8], temperature=2.0, seed=seed, max_tokens=20) for seed in (11, 12, 13)
    ]
    crowd = run_all(
        make_model_engine(tiny, Limits(max_chunk_tokens=2)),
        *others,
        late=[make_request(request_id="x", **asked)],
    )
    assert crowd["x"].text == alone
    other = run_all(make_model_engine(tiny), make_request(request_id="y", **asked | {"seed": 12}))
    assert other["y"].text != alone


def test_the_real_model_answers_as_generate_does(
    smol: LoadedModel, make_model_engine: Make, make_request: Make, run_all: Make
) -> None:
    """Two questions at once, greedy, through the model's own chat template."""
    reader = PromptReader(smol.tokenizer, smol.window_tokens)
    questions = ("What is the capital of France?", "Name a color.")
    prompts = [reader.read([Message("user", question)]) for question in questions]
    requests = [make_request(prompt, max_tokens=8) for prompt in prompts]
    told = run_all(make_model_engine(smol, Limits(max_chunk_tokens=16)), *requests)
    for prompt, request in zip(prompts, requests, strict=True):
        assert told[request.request_id].text == generate(smol, prompt, 8)
    assert "Paris" in told[requests[0].request_id].text


def test_the_real_model_s_seed_holds_among_neighbors(
    smol: LoadedModel, make_model_engine: Make, make_request: Make, run_all: Make
) -> None:
    """The same words, alone and beside another."""
    prompt = PromptReader(smol.tokenizer, smol.window_tokens).read([Message("user", "Hello")])
    asked = {"temperature": 1.0, "seed": 5, "max_tokens": 6}
    alone = run_all(make_model_engine(smol), make_request(prompt, "x", **asked))["x"]
    crowd = run_all(
        make_model_engine(smol),
        make_request(prompt, temperature=1.0, seed=6, max_tokens=6),
        make_request(prompt, "x", **asked),
    )["x"]
    assert crowd.text == alone.text
    assert crowd.completion_tokens == alone.completion_tokens
