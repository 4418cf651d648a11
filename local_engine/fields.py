"""Reads the fields of a JSON object one by one, and names what is wrong with them.

A field is honored or refused, never ignored: what nobody took is refused at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from local_engine.errors import RequestRefused


class Fields:
    """One JSON object on its way through validation; null counts as absent.

    Args:
        value: The object.
        path: How the body names it, such as `stream_options`; empty for the body itself.
    """

    def __init__(self, value: Mapping[str, object], path: str = "") -> None:
        """Start with every field that is not null."""
        self._left = {name: item for name, item in value.items() if item is not None}
        self._path = path

    def name(self, field: str) -> str:
        """Return the field's whole path in the body."""
        return f"{self._path}.{field}" if self._path else field

    def take(self, field: str) -> object:
        """Return a field of any type, None where it is absent."""
        return self._left.pop(field, None)

    def string(self, field: str) -> str | None:
        """Take a string."""
        value = self.take(field)
        if value is not None and not isinstance(value, str):
            raise self.wrong_type(field, "a string", value)
        return value

    def boolean(self, field: str) -> bool:
        """Take a boolean; absent is False."""
        value = self.take(field)
        if value is not None and not isinstance(value, bool):
            raise self.wrong_type(field, "true or false", value)
        return bool(value)

    def integer(self, field: str, low: int, high: int) -> int | None:
        """Take an integer between two bounds, both allowed."""
        value = self.take(field)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong_type(field, "an integer", value)
        if not low <= value <= high:
            raise self.invalid(field, f"{value} is not between {low} and {high}")
        return value

    def number(self, field: str, low: float, high: float) -> float | None:
        """Take a number between two bounds, both allowed."""
        value = self.take(field)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong_type(field, "a number", value)
        if not low <= value <= high:
            raise self.invalid(field, f"{value} is not between {low:g} and {high:g}")
        return float(value)

    def drop_defaults(self, defaults: Iterable[tuple[str, object]]) -> None:
        """Forget fields whose value says the same as leaving them out.

        Args:
            defaults: Names and such values; a name may come more than once. `True` and `1` are not
                the same.
        """
        for field, default in defaults:
            if field in self._left and _same(self._left[field], default):
                del self._left[field]

    def refuse_rest(self) -> None:
        """Refuse what is left.

        Raises:
            RequestRefused: Some field was not taken; the message names the first.
        """
        for field in self._left:
            name = self.name(field)
            raise RequestRefused(
                f"{name!r} is not supported by this engine; leave it out",
                param=name,
                code="unsupported_parameter",
            )

    def missing(self, field: str) -> RequestRefused:
        """Return the refusal of an object that lacks a field."""
        name = self.name(field)
        return RequestRefused(
            f"{name!r} is required", param=name, code="missing_required_parameter"
        )

    def invalid(self, field: str, why: str) -> RequestRefused:
        """Return the refusal of a field's value."""
        name = self.name(field)
        return RequestRefused(f"{name!r}: {why}", param=name, code="invalid_value")

    def wrong_type(self, field: str, wanted: str, value: object) -> RequestRefused:
        """Return the refusal of a field's type."""
        name = self.name(field)
        return RequestRefused(
            f"{name!r} must be {wanted}, not {_describe(value)}", param=name, code="invalid_type"
        )


def as_object(value: object, path: str) -> Fields:
    """Return the fields of a value that must be a JSON object.

    Raises:
        RequestRefused: It is something else.
    """
    if not isinstance(value, dict):
        raise RequestRefused(
            f"{path!r} must be an object, not {_describe(value)}", param=path, code="invalid_type"
        )
    return Fields(value, path)


def _same(value: object, default: object) -> bool:
    return value == default and isinstance(value, bool) == isinstance(default, bool)


def _describe(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"
