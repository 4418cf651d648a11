"""Text Generation Inference's own wire: no SDK of the vendor's parses it without a server."""

from __future__ import annotations

import json
from typing import Any

from tests.recordings.extract import LENGTH, STOP, Extract, tokens

WORDS = {"eos_token": STOP, "stop_sequence": STOP, "length": LENGTH}


def read(body: bytes, *, stream: bool) -> Extract:
    """Add token to token, or take the text of the first generation."""
    extract = Extract()
    said = extract.choice()
    if not stream:
        document = json.loads(body)
        document = document[0] if isinstance(document, list) else document
        said.text = document["generated_text"]
        end(extract, document.get("details"))
        return extract
    for line in body.splitlines():
        if not line.startswith(b"data:"):
            continue
        event: dict[str, Any] = json.loads(line[5:])
        if "error" in event:
            extract.error = event["error"]
            break
        if not event["token"]["special"]:
            said.text += event["token"]["text"]
        if event.get("generated_text") is not None:
            end(extract, event.get("details"))
    return extract


def end(extract: Extract, details: dict[str, Any] | None) -> None:
    """Take the reason, where the answer names one; a whole text is an end without one, too."""
    said = extract.choice()
    if details:
        said.end(WORDS, details["finish_reason"])
        read_tokens = details.get("input_length") or len(details.get("prefill") or ()) or None
        extract.usage = tokens(read_tokens, details.get("generated_tokens"))
    else:
        said.finish = STOP
