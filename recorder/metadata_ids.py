"""Identifiers of a metadata document (RFC 7865, section 6.10): UUIDs, written as the base64 of their 16 octets.

All are derived from the call's own identifier, which stands for a place in a capture and tells nothing of people.
"""

from binascii import b2a_base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from recorder.identifiers import part_octets, part_uuid
from recorder.model import Side


def id_text(identifier: UUID) -> str:
    """The 24 characters that stand for a UUID in the document."""
    return _text(identifier.bytes)


def _text(octets: bytes) -> str:
    return b2a_base64(octets, newline=False).decode("ascii")


def group_uuid(first_call: UUID) -> UUID:
    """Identifier of the group whose first call is `first_call`.

    It is not the call's own, for that names the session: one UUID for two elements is an error (section 6.10).
    """
    return part_uuid(first_call, "group", 0)


class Texts(NamedTuple):
    """Identifiers as the document writes them again and again."""

    session: str
    group: str
    participants: Mapping[Side, str]


@dataclass(frozen=True, slots=True)
class Identifiers:
    """What identifies the parts of one call's document."""

    call: UUID
    participants: Mapping[Side, UUID] = field(default_factory=dict)
    """Identifiers that participants have from earlier calls of the group: a party that stays through a transfer keeps
    its own (section 6.5.1)."""

    @property
    def session(self) -> UUID:
        """`session_id`: the call's own identifier, the `id` of its call.json."""
        return self.call

    def participant(self, side: Side) -> UUID:
        """`participant_id`."""
        return self.participants.get(side) or part_uuid(self.call, "participant", 0 if side is Side.CALLER else 1)

    def other(self, place: int) -> UUID:
        """`participant_id` of a further participant, by its place in `Call.others`."""
        return part_uuid(self.call, "participant", 2 + place)

    def texts(self, first_call: UUID) -> Texts:
        """As written; `first_call` is that of the group."""
        call = self.call.bytes
        first = call if first_call is self.call else first_call.bytes
        participants = {
            Side.CALLER: self._participant_text(call, Side.CALLER, 0),
            Side.CALLEE: self._participant_text(call, Side.CALLEE, 1),
        }
        return Texts(_text(call), _text(part_octets(first, "group", 0)), participants)

    def _participant_text(self, call: bytes, side: Side, ordinal: int) -> str:
        known = self.participants.get(side)
        return id_text(known) if known is not None else _text(part_octets(call, "participant", ordinal))

    def stream(self, label: str, occurrence: int = 0) -> UUID:
        """`stream_id`; `occurrence` tells apart streams that share a label."""
        return part_uuid(self.call, _stream_kind(label), occurrence)

    def stream_text(self, label: str, occurrence: int) -> str:
        """`stream`, as written."""
        return _text(part_octets(self.call.bytes, _stream_kind(label), occurrence))


def _stream_kind(label: str) -> str:
    return f"stream {label.encode('utf-8', 'backslashreplace').decode()}"
