"""What a caller is told of an upstream's refusal."""

from __future__ import annotations

import pytest

from backends.errors import classify
from gateway.errors import backend_reply


@pytest.mark.parametrize(
    ("status", "code"), [(400, None), (400, "invalid_api_key"), (401, None), (403, None)]
)
def test_the_gateways_own_key_is_never_repeated(status: int, code: str | None) -> None:
    """Upstreams quote it, also under the status of a wrong request."""
    words = "Incorrect API key provided: sk-secret" if code is None else "sk-secret"
    reply = backend_reply(classify(status, words, code=code), "acme")
    assert "sk-secret" not in str(reply)
    assert f"credential ({status})" in reply.message
