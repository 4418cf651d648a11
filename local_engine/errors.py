"""What can go wrong, as types.

EngineError
  RequestRefused    this request cannot be served as it is, or not now; becomes an HTTP error
  LoadError         the weights cannot be served; the process ends
  EngineBroken      the forward failed too often in a row; the process ends
"""

from __future__ import annotations

from local_engine.types import Failure


class EngineError(Exception):
    """Anything that this package raises on purpose."""


class RequestRefused(EngineError):
    """A request was refused before the engine took it."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str = "invalid_value",
        status: int = 400,
        retry_after_s: int | None = None,
    ) -> None:
        """Say what is wrong.

        Args:
            message: What is wrong and what would do instead.
            param: The field of the body, as a path such as `messages[0].role`, where there is one.
            code: A stable word for programs.
            status: The HTTP status.
            retry_after_s: When another try may do better, in whole seconds.
        """
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.status = status
        self.retry_after_s = retry_after_s

    @classmethod
    def from_failure(cls, failure: Failure) -> RequestRefused:
        """Return the refusal that says the same as a failure of the engine."""
        return cls(
            failure.message,
            code=failure.code,
            status=failure.status,
            retry_after_s=failure.retry_after_s,
        )


class LoadError(EngineError):
    """The weights cannot be served; the message is one line for the operator."""


class EngineBroken(EngineError):
    """The forward failed too often in a row to go on; another process may do better."""
