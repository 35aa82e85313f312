"""Commands to the recording sessions of a running service.

In: the service's address, a token where it wants one; names of sessions and calls. Out: values of `control`, or what
the service answers. Raises StatusError with what the user can do about it, and nothing else, whatever answers there.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from recorder.siprec.control import SessionEvent, SessionInfo
from recorder.siprec.session_json import read_event, read_sessions
from recorder.status import StatusError
from recorder.status_address import Address
from recorder.status_client import Asker


class ControlClient:
    """One service."""

    def __init__(self, address: Address, token: str | None = None) -> None:
        self._asker = Asker(address, token)

    def sessions(self, which: str = "") -> tuple[SessionInfo, ...]:
        """All sessions, or those that `which` fits."""
        if not which:
            return read_sessions(self._asker.get("/v1/sessions"))
        found = self._asker.find(f"/v1/sessions/{_part(which)}")
        return read_sessions(found) if found is not None else ()

    def start(self, call: str, servers: str = "", options: Mapping[str, str] | None = None) -> Sequence[str]:
        """Record a call in progress; gives session ids."""
        return self._ids(f"/v1/calls/{_part(call)}/start", {"servers": servers, "options": dict(options or {})})

    def stop(self, which: str) -> Sequence[str]:
        """End sessions."""
        return self._ids(f"/v1/sessions/{_part(which)}/stop", {})

    def pause(self, which: str) -> Sequence[str]:
        """Record nothing for now."""
        return self._ids(f"/v1/sessions/{_part(which)}/pause", {})

    def resume(self, which: str) -> Sequence[str]:
        """Record again."""
        return self._ids(f"/v1/sessions/{_part(which)}/resume", {})

    def request(self, which: str, method: str, content_type: str = "", body: str = "") -> str:
        """Send a request within a session; gives the answer's status and phrase."""
        said = {"method": method, "content_type": content_type, "body": body}
        return str(self._command(f"/v1/sessions/{_part(which)}/request", said).get("answer", ""))

    def drain(self) -> str:
        """Begin no sessions any more; gives a sentence."""
        return str(self._command("/v1/drain", {}).get("text", ""))

    def events(self) -> Iterator[SessionEvent]:
        """What happens from now on, until the service ends or leaves us behind."""
        for line in self._asker.lines("/v1/events"):
            if line.strip():
                yield read_event(line)

    def _ids(self, path: str, said: Mapping[str, Any]) -> Sequence[str]:
        found = self._command(path, said).get("sessions", ())
        return [str(each) for each in found] if isinstance(found, list) else []

    def _command(self, path: str, said: Mapping[str, Any]) -> dict[str, Any]:
        body = self._asker.post(path, json.dumps(said).encode("utf-8", "replace"))
        try:
            found = json.loads(body)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise StatusError("the answer is not what this version of spanrec understands")
        return found


def _part(name: str) -> str:
    return quote(name, safe="")
