"""The service's state as JSON and back.

In: values of `status`, or their JSON from a status server. Out: octets, or the values. The form follows from the
types; times are RFC 3339 strings. Serialising is compiled (pydantic), because thousands of calls are told once a
second beside a capture that must not wait.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import core_schema

from recorder.document import clean, format_time
from recorder.status import LadderStep, LiveCall, Snapshot, StatusError

T = TypeVar("T")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def snapshot_json(snapshot: Snapshot) -> bytes:
    """A snapshot."""
    return adapter(Snapshot).dump_json(snapshot)


def calls_json(calls: Sequence[LiveCall]) -> bytes:
    """{"calls": [...]}."""
    return b'{"calls":' + adapter(tuple[LiveCall, ...]).dump_json(tuple(calls)) + b"}"


def call_json(call: LiveCall) -> bytes:
    """One call."""
    return adapter(LiveCall).dump_json(call)


def ladder_json(steps: Sequence[LadderStep]) -> bytes:
    """{"messages": [...]}."""
    return b'{"messages":' + adapter(tuple[LadderStep, ...]).dump_json(tuple(steps)) + b"}"


def read_snapshot(content: bytes) -> Snapshot:
    """Raises StatusError where it is none."""
    return read(adapter(Snapshot), content)


def read_calls(content: bytes) -> tuple[LiveCall, ...]:
    """Raises StatusError where it is none."""
    return read(adapter(dict[str, tuple[LiveCall, ...]]), content).get("calls", ())


def read_call(content: bytes) -> LiveCall:
    """Raises StatusError where it is none."""
    return read(adapter(LiveCall), content)


def read_ladder(content: bytes) -> tuple[LadderStep, ...]:
    """Raises StatusError where it is none."""
    return read(adapter(dict[str, tuple[LadderStep, ...]]), content).get("messages", ())


def time_schema() -> core_schema.CoreSchema:
    """How pydantic reads and writes a time."""
    return core_schema.no_info_plain_validator_function(
        _parse_time,
        serialization=core_schema.plain_serializer_function_ser_schema(
            format_time, return_schema=core_schema.str_schema(), when_used="json"
        ),
    )


def wire_schema() -> core_schema.CoreSchema:
    """How pydantic reads and writes a text from the wire."""
    return core_schema.str_schema(
        serialization=core_schema.plain_serializer_function_ser_schema(
            clean, return_schema=core_schema.str_schema(), when_used="json"
        )
    )


@cache
def adapter(kind: Any) -> TypeAdapter[Any]:
    """What reads and writes values of a type."""
    return TypeAdapter(kind)


def read(reader: TypeAdapter[T], content: bytes) -> T:
    """A value from its JSON. Raises StatusError where it is none."""
    try:
        return reader.validate_json(content)
    except (ValidationError, TypeError) as error:
        raise StatusError("the answer is not what this version of spanrec understands") from error


def _parse_time(value: object) -> int:
    if not isinstance(value, str):
        raise ValueError("a time is a string")
    since_epoch = datetime.fromisoformat(value) - _EPOCH
    return since_epoch // timedelta(microseconds=1) * 1000
