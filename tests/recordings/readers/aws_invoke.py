"""Anthropic's Messages inside Bedrock's InvokeModel: boto3's frames, Anthropic's reader."""

from __future__ import annotations

from tests.recordings.extract import Extract
from tests.recordings.readers import anthropic_messages
from tests.recordings.readers.aws import client


def read(body: bytes, *, stream: bool) -> Extract:
    """Take the payloads out of the frames and read them as a stream of Anthropic's own."""
    if not stream:
        return anthropic_messages.read(body, stream=False)
    answer = client(body, stream=True).invoke_model_with_response_stream(modelId="m", body=b"{}")
    payloads = [event["chunk"]["bytes"] for event in answer["body"]]
    lines = b"".join(b"data: " + payload + b"\n\n" for payload in payloads)
    return anthropic_messages.read(lines, stream=True)
