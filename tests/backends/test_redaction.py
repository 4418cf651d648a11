"""No key comes through in an upstream's words, and the words stay words."""

from __future__ import annotations

import random
import string
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.redaction import REDACTED, redacted
from backends.wire.failure import refusal
from tests.recordings.cases import ABSENT, Case, recorded, refusals

CASES = [pytest.param(case, id=case.name) for case in refusals()]
if not recorded():
    CASES.append(pytest.param(None, id="recordings", marks=pytest.mark.skip(ABSENT)))

QUOTES_A_KEY = "openai-completions/error--completion-stream-wrong-api-key"

LETTERS = string.ascii_letters
ALNUM = LETTERS + string.digits
URL_SAFE = ALNUM + "-_"

SHAPES: dict[str, tuple[str, str, int]] = {
    "OpenAI": ("sk-", ALNUM, 48),
    "OpenAI, of a project": ("sk-proj-", URL_SAFE, 120),
    "OpenAI, of a service": ("sk-svcacct-", URL_SAFE, 120),
    "Anthropic": ("sk-ant-api03-", URL_SAFE, 95),
    "OpenRouter": ("sk-or-v1-", "0123456789abcdef", 64),
    "DeepSeek": ("sk-", "0123456789abcdef", 32),
    "Google": ("AIza", URL_SAFE, 35),
    "Google, a token": ("ya29.", URL_SAFE, 100),
    "Groq": ("gsk_", ALNUM, 52),
    "xAI": ("xai-", ALNUM, 80),
    "Hugging Face": ("hf_", LETTERS, 34),
    "Perplexity": ("pplx-", ALNUM, 48),
    "NVIDIA": ("nvapi-", URL_SAFE, 64),
    "Fireworks": ("fw_", ALNUM, 24),
    "Cerebras": ("csk-", ALNUM, 48),
    "GitHub": ("ghp_", ALNUM, 36),
    "Amazon, the name": ("AKIA", string.ascii_uppercase + string.digits, 16),
    "Amazon, the secret": ("", ALNUM + "/+", 40),
    "Bedrock": ("ABSK", ALNUM + "+/", 120),
    "Azure": ("", "0123456789abcdef", 32),
    "Azure, new": ("", ALNUM, 84),
    "Mistral": ("", ALNUM, 32),
    "Cohere": ("", ALNUM, 40),
    "Together": ("", "0123456789abcdef", 64),
    "Databricks": ("dapi", "0123456789abcdef", 32),
}
MASKS: dict[str, Callable[[str], str]] = {
    "whole": lambda key: key,
    "OpenAI's": lambda key: f"{key[:8]}{'*' * (len(key) - 12)}{key[-4:]}",
    "DeepSeek's": lambda key: f"****{key[-4:]}",
    "xAI's": lambda key: f"{key[:2]}***{key[-2:]}",
    "bullets": lambda key: f"{key[:4]}••••{key[-4:]}",
}
SENTENCES = (
    "Incorrect API key provided: {}. You can find your key in the console.",
    "Authentication Fails, Your api key: {} is invalid",
    "API key '{}' not valid. Please pass a valid one.",
    'the header said "Authorization: Bearer {}"',
    "GET https://api.example.com/v1/models?key={} was refused",
    "{}",
)


@given(
    st.sampled_from(sorted(SHAPES)),
    st.sampled_from(sorted(MASKS)),
    st.sampled_from(SENTENCES),
    st.integers(0, 2**32),
)
def test_no_key_comes_through(shape: str, mask: str, sentence: str, seed: int) -> None:
    """Of any usual shape, whole or masked, whatever stands around it."""
    start, alphabet, length = SHAPES[shape]
    rng = random.Random(seed)
    key = start + "".join(rng.choices(alphabet, k=length))
    shown = MASKS[mask](key)
    words = redacted(sentence.format(shown))
    assert REDACTED in words
    words = words.replace(REDACTED, "")
    # Not even four of its characters in a row, but for what the sentence holds.
    pieces = {shown[at : at + 4] for at in range(len(shown) - 3)}
    assert not [piece for piece in pieces if piece in words and piece not in sentence]


@pytest.mark.parametrize(
    "key",
    [
        "sk-secret",
        "sk-ab...yz12",
        "sk-proj-ab…yz",
        "AIzaSy...x4Q8",
        "3f2a...9c1d",
        "gsk_abcdefghij",
        "ABCD1234-EFGH5678-IJKL9012",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_X",
    ],
)
def test_short_and_shortened_keys_are_seen_too(key: str) -> None:
    """By how they begin, by their dots, or by being no words."""
    assert redacted(f"the key {key}, of yours") == f"the key {REDACTED}, of yours"


@pytest.mark.parametrize("words", ["the key letmein9 is wrong", "Bearer letmein9", "'letmein9'"])
def test_a_key_that_is_known_needs_no_shape(words: str) -> None:
    """As a header's value has it, with or without its scheme; placeholders are no secrets."""
    for header in ("letmein9", "Bearer letmein9"):
        assert "letmein9" not in redacted(words, [header])
    assert redacted("no token: none", ["Bearer none"]) == "no token: none"


@pytest.mark.parametrize(
    "spelled",
    [
        'my/9+k=="',
        "my%2F9%2Bk%3D%3D%22",
        "my%2f9%2bk%3d%3d%22",
        "my/9%2Bk==%22",
        "my%252F9%252Bk%253D%253D%2522",
        'my/9+k==\\"',
        'my\\/9+k==\\"',
        "my\\u002f9\\u002Bk\\u003d=\\u0022",
    ],
)
def test_a_key_that_is_known_is_found_however_it_is_escaped(spelled: str) -> None:
    """As in an address or in JSON, whole or in part."""
    assert redacted(f"no <{spelled}>, sorry", ['Bearer my/9+k=="']) == f"no <{REDACTED}>, sorry"


@pytest.mark.parametrize(
    "words",
    [
        "model claude-sonnet-4-20250514 not found",
        "us.anthropic.claude-3-5-sonnet-20241022-v2:0 is not enabled",
        "meta-llama/Llama-3.2-11B-Vision-Instruct-Turbo",
        "accounts/fireworks/models/llama-v3p1-405b-instruct",
        "TheBloke/Mistral-7B-Instruct-v0.2-GGUF/mistral-7b-instruct-v0.2.Q4_K_M.gguf",
        "HuggingFaceTB/SmolLM2-135M-Instruct, cognitivecomputations/dolphin-mixtral-8x22b",
        "x-ai/grok-4-1-fast-non-reasoning and xai-org/grok-1",
        "arn:aws:bedrock:us-east-1:123456789012:provisioned-model/ab12cd34ef56",
        "see https://platform.openai.com/account/api-keys.",
        "No tool output found for function call call_a1B2c3D4e5F6g7H8i9J0k1L2",
        "(request id: 8a2f3c9d8a2f3c9d8a2f3c9d8a2f3c9d, req_011CSHoEeqs5C35K2UUqR7Fy)",
        "ref: 96164522-08b2-4cbf-886e-e5a38961a688",
        "messages.0.content.1.source.base64: max_completion_tokens=100000000",
        "2026-11-23T12:00:00.000Z InvalidAuthenticationTokenTenant",
        "Missing bearer token; Bearer authentication is required",
        "Invalid API key: check your account",
        "one moment... then again",
        "the prompt was blocked: PROHIBITED_CONTENT",
        "ACCESS_TOKEN_SCOPE_INSUFFICIENT",
        "torch.cuda.OutOfMemoryError: CUDA out of memory",
        "srvtoolu_01Abc9defGHIJKLMNOP in container_011CPR5CNjB747bTd36fQLFk",
        "a risk-averse task-force, **bold**",
    ],
)
def test_what_is_no_key_stays(words: str) -> None:
    """Names, addresses, ids and sentences."""
    assert redacted(words) == words


@pytest.mark.parametrize("case", CASES)
def test_recorded_words_stay(case: Case) -> None:
    """The one that quotes a key loses the key, and nothing else."""
    words = refusal(case.status, "Phrase", {}, case.body).message
    if case.name.startswith(QUOTES_A_KEY):
        words = words.replace("XX-XXXXXXXXX-XXX", REDACTED)
    assert redacted(refusal(case.status, "Phrase", {}, case.body).message) == words


PIECES = (
    "a", "a-", "1a.", "a1 ", "aB", "abC", "Ab", "ABcd", "api key:", "sk-", "…", "*", "-", "9", " ",
    "request id ", "Bearer ", "a...", "https://a", "=", "call_", ".", "..a", "*.", "secret ",
    "secret=.", "secret:", "api key is:", "Basic\t", "arn:aws", "arn:aws:", "eyJ", "ya29.", "sk-.",
    "a*a", "•", "a…", "_", "aaaaaaaaaaaaaaaaaaa1b!", "1a2b3c ", "%2F", "\\/", "\n",
)  # fmt: skip


@pytest.mark.parametrize("piece", PIECES)
def test_the_time_grows_as_the_words_do(piece: str) -> None:
    """As much is read in one text as in 32 short ones, and takes about as long."""

    def took_s(words: list[str]) -> float:
        begun = time.process_time()
        for each in words:
            redacted(each, ["Bearer letm/in9"])
        return time.process_time() - begun

    for tail in ("", "!", "-9Z"):
        short = (piece * 2_000)[:2_000] + tail
        long = (piece * 64_000)[:64_000] + tail
        # Three tries: a ratio of 32 is what is looked for, and another program's turn is not.
        ratios = (took_s([long]) / took_s([short] * 32) for _ in range(3))
        assert any(ratio < 6 for ratio in ratios)
