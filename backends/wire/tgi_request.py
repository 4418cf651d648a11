"""Text Generation Inference's own requests: an upstream's body out.

Source: TGI 3's OpenAPI description, ``/generate_stream`` (read 2026-11).
"""

from __future__ import annotations

from typing import Any, Final

from backends.types import ChatRequest
from backends.wire import vendor_options
from backends.wire.prompts import prompt_of

_SAME: Final = ("seed", "repetition_penalty", "frequency_penalty")


def encode_request(request: ChatRequest, *, model: str, options_key: str = "") -> dict[str, Any]:
    """Return the body of a streamed generation; the server serves one model, without a name.

    Raises:
        Unsupported: it is more than one text.
    """
    del model
    params = request.params
    parameters: dict[str, Any] = {"details": True, "return_full_text": False}
    parameters |= {name: params[name] for name in _SAME if name in params}
    temperature = params.get("temperature")
    if temperature is not None:  # the wire refuses 0: it is no sampling
        parameters["do_sample"] = temperature > 0
        if temperature > 0:
            parameters["temperature"] = temperature
    if params.get("top_p", 1) < 1:  # the wire refuses values that switch these off
        parameters["top_p"] = params["top_p"]
    if params.get("top_k", 0) > 0:
        parameters["top_k"] = params["top_k"]
    if request.stop:
        parameters["stop"] = list(request.stop)
    if request.output_bound is not None:
        parameters["max_new_tokens"] = request.output_bound
    vendor_options.add(parameters, request, options_key)
    return {"inputs": prompt_of(request), "parameters": parameters, "stream": True}
