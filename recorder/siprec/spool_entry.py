"""A call that waits for a recording server, as a small file beside its packets.

In: the call's last picture and how it was to be recorded. Out: JSON, and from it the same values again. Passwords are
not among them: whoever delivers takes those of the settings. Raises ValueError where a file is not of this program.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any
from uuid import UUID

from capture.address import Endpoint, parse_endpoint
from decoders.sdp import Direction, PayloadFormat
from recorder.model import CallState, Side
from recorder.siprec.picture import CallPicture, PartyPicture, Phase, StreamPicture
from recorder.siprec.src_decision import Choice, Insecure, Instance, OnBye, OnHold, Overrides, Protection, Server

VERSION = 1


@dataclass(frozen=True, slots=True)
class SpooledCall:
    """A call that was not delivered, or not all of it."""

    picture: CallPicture
    """Its last one."""
    instance: Instance
    """How it was to be recorded; its servers are without credentials."""
    since: int
    """From when on, capture time in ns."""
    kept: int
    """When it was put there, ns UTC."""


def to_json(call: SpooledCall) -> bytes:
    """The file."""
    record = {
        "version": VERSION,
        "since": call.since,
        "kept": call.kept,
        "picture": _plain(call.picture),
        "instance": _plain(call.instance),
    }
    return (json.dumps(record, indent=1, ensure_ascii=True) + "\n").encode()


def from_json(data: bytes) -> SpooledCall:
    """The value. Raises ValueError."""
    try:
        record = json.loads(data)
        if record["version"] != VERSION:
            raise ValueError(f"version {record['version']!r}, this program reads {VERSION}")
        return SpooledCall(
            _picture(record["picture"]), _instance(record["instance"]), int(record["since"]), int(record["kept"])
        )
    except (KeyError, TypeError, AttributeError, ValueError, re.error) as error:
        raise ValueError(f"is no call that was kept: {error!r}") from error


def _plain(value: Any) -> Any:
    """Values as JSON has them; credentials are left out."""
    if isinstance(value, StrEnum):
        return str(value)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Endpoint):
        return [value.host, value.port]
    if isinstance(value, re.Pattern):
        return value.pattern
    if isinstance(value, Mapping):
        return [[key, _plain(each)] for key, each in value.items()]
    if isinstance(value, frozenset):
        return sorted(_plain(each) for each in value)
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    if hasattr(value, "__dataclass_fields__"):
        names = (field.name for field in fields(value) if field.name != "credentials")
        return {name: _plain(getattr(value, name)) for name in names}
    return value


def _picture(record: Any) -> CallPicture:
    caller, callee = (_party(each) for each in record["parties"])
    return CallPicture(
        index=record["index"],
        id=UUID(record["id"]),
        group=UUID(record["group"]),
        call_id=record["call_id"],
        phase=Phase(record["phase"]),
        started=record["started"],
        answered=record["answered"],
        ended=record["ended"],
        state=CallState(record["state"]),
        parties=(caller, callee),
        streams=tuple(_stream(each) for each in record["streams"]),
        held_by=frozenset(Side(each) for each in record["held_by"]),
        session_ids=tuple(record["session_ids"]),
        reasons=tuple((protocol, cause, text) for protocol, cause, text in record["reasons"]),
        tags=tuple(record["tags"]),
        record_preference=record["record_preference"],
        record_aware=record["record_aware"],
    )


def _party(record: Any) -> PartyPicture:
    address = record["address"]
    return PartyPicture(
        side=Side(record["side"]),
        participant_id=UUID(record["participant_id"]),
        names=tuple((aor, name) for aor, name in record["names"]),
        address=None if address is None else parse_endpoint(*address),
        joined=record["joined"],
        left=record["left"],
        params=tuple((name, value) for name, value in record["params"]),
    )


def _stream(record: Any) -> StreamPicture:
    formats = {number: PayloadFormat(**each) for number, each in record["formats"]}
    return StreamPicture(
        **{
            **record,
            "side": Side(record["side"]),
            "formats": formats,
            "direction": Direction(record["direction"]),
        }
    )


def _instance(record: Any) -> Instance:
    overrides = record["overrides"]
    group = overrides["group"]
    servers = (Server(**{**each, "protection": Protection(each["protection"])}) for each in record["servers"])
    return Instance(
        **{
            **record,
            "servers": tuple(servers),
            "choice": Choice(record["choice"]),
            "final": None if record["final"] is None else re.compile(record["final"]),
            "overrides": Overrides(**{**overrides, "group": None if group is None else UUID(group)}),
            "headers": tuple((name, value) for name, value in record["headers"]),
            "media": tuple(record["media"]),
            "on_hold": OnHold(record["on_hold"]),
            "on_bye": OnBye(record["on_bye"]),
            "insecure": Insecure(record["insecure"]),
        }
    )
