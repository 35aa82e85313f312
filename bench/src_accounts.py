"""What became of calls that `bench.wire` sent, at the recording servers and in the client's spool.

In: directories of stores, as programs left them. Out: values by the number of a call, which its URIs tell. It changes
nothing.
"""

import json
import os
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.faults_check import nanoseconds
from recorder.siprec.received import FILE, read
from recorder.siprec.spool import FILE as SPOOLED

_NUMBER = re.compile(r"sip:\+4930(\d{7})@")
_SESSION = re.compile(rb'session_id="([^"]+)"')
_PARTICIPANT = re.compile(rb'participant_id="([^"]+)"')


@dataclass(slots=True)
class At:
    """A call at a server, or in the client's own documents."""

    documents: list[dict[str, Any]] = field(default_factory=list)
    sessions: set[bytes] = field(default_factory=set)
    """`session_id`s of its metadata."""
    participants: set[bytes] = field(default_factory=set)
    invited: int = 0
    """When its first INVITE came, ns; 0: none is known."""

    def packets(self, side: str) -> int:
        """Of a direction, of all its recordings."""
        return sum(each["packets"] for each in self.streams(side))

    def streams(self, side: str) -> list[dict[str, Any]]:
        """Of a direction."""
        return [each for one in self.documents for each in one["streams"] if each["participant"] == side]

    @property
    def first(self) -> int | None:
        """When its first RTP packet came, ns."""
        return min((nanoseconds(each["started"]) for one in self.documents for each in one["streams"]), default=None)


def at(store: Path) -> dict[int, At]:
    """All calls of a store: recordings, and metadata of those that are in progress."""
    found: dict[int, At] = defaultdict(At)
    for path in store.rglob("call.json"):
        document = json.loads(path.read_bytes())
        number = number_of(document["caller"]["uri"] or "")
        if number is not None:
            found[number].documents.append(document)
    for path in store.rglob(FILE):
        messages = list(read(path.parent))
        bodies = b"".join(each.body for each in messages)
        number = number_of(bodies.decode("utf-8", "replace"))
        if number is not None:
            known = found[number]
            known.sessions |= set(_SESSION.findall(bodies))
            known.participants |= set(_PARTICIPANT.findall(bodies))
            invited = min((each.at for each in messages if each.what == "INVITE"), default=0)
            known.invited = min(known.invited or invited, invited)
    return dict(found)


def spooled(directory: Path) -> set[int]:
    """Calls that wait in a spool."""
    found = set()
    for name in os.listdir(directory) if directory.exists() else ():
        try:
            number = number_of((directory / name / SPOOLED).read_text(errors="replace"))
        except FileNotFoundError:
            continue  # it has been delivered meanwhile
        if number is not None:
            found.add(number)
    return found


def number_of(text: str) -> int | None:
    """The call's number that a text tells."""
    match = _NUMBER.search(text)
    return None if match is None else int(match[1])
