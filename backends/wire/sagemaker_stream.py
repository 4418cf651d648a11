"""SageMaker's answers: a container's own body, cut into binary frames wherever it pleases.

Source: the service model of ``sagemaker-runtime`` (botocore 1.44.5, read 2026-11): events
``PayloadPart`` hold bytes of the container's answer, and say nothing of its meaning.
"""

from __future__ import annotations

from backends.errors import BackendError
from backends.types import StreamEvent
from backends.wire.aws_frames import Frames, parts
from backends.wire.decoder import AnswerDecoder
from backends.wire.openai_chat import StreamDecoder


class PartsDecoder(AnswerDecoder):
    """Takes the frames off and hands the body to the next decoder among its bases.

    The body may be a stream or one document, as without frames; and without frames, as a
    container's own ``/invocations`` answers, it is read as it is.
    """

    _outer: Frames | None = None
    _bare = False

    def feed(self, data: bytes) -> list[StreamEvent]:
        """See ``AnswerDecoder``."""
        if data and self._outer is None and not self._bare:
            self._bare = not data.startswith(b"\0")  # a frame begins with its length
            self._outer = None if self._bare else Frames(parts)
        if self._outer is None:
            return super().feed(data)
        events: list[StreamEvent] = []
        try:
            for part in self._outer.feed(data):
                events += super().feed(part)
        except BackendError as error:
            self._fail(error)
        return events

    def end(self) -> list[StreamEvent]:
        """See ``AnswerDecoder``."""
        if self._outer is not None:
            try:
                tuple(self._outer.end())
            except BackendError as error:
                self._fail(error)
        return super().end()

    def _fail(self, error: BackendError) -> None:
        if not self.done:
            self.failure = self.failure or error


class ChatPartsDecoder(PartsDecoder, StreamDecoder):
    """OpenAI's chat wire within SageMaker's frames."""
