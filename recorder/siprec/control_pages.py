"""Commands to recording sessions over HTTP: what the status server answers below `/v1`.

In: method, path and body of a request. Out: a status and JSON, or a stream of events, by a `SessionControl`. Paths are
compared with a closed list; names of sessions and calls in them are percent-encoded and only ever compared. Who may ask
is the server's to say: all of this is for its owner, and for who has the token.

| request | body | answer |
| --- | --- | --- |
| GET /v1/sessions | | {"sessions": [SessionInfo…]} |
| GET /v1/sessions/{which} | | the same, those that fit |
| GET /v1/events | | a line of JSON for each SessionEvent, as they happen |
| POST /v1/calls/{call}/start | {"servers"?, "options"?} | {"sessions": [id…]} |
| POST /v1/sessions/{which}/stop, pause, resume | {} | {"sessions": [id…]} |
| POST /v1/sessions/{which}/request | {"method", "content_type"?, "body"?} | {"answer": "200 OK"} |
| POST /v1/drain | {} | {"text": …} |
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from capture.errors import SpanrecError
from recorder.siprec.control import ControlError, SessionControl, SessionInfo
from recorder.siprec.event_feed import EventFeed, Reader
from recorder.siprec.figures import Figures, MediaCounts, SessionFigures
from recorder.siprec.session_json import sessions_json
from recorder.status_pages import JSON, Reply, refusal

LINES = "application/x-ndjson"
METHODS = frozenset({"INFO", "MESSAGE", "NOTIFY", "OPTIONS"})
"""Requests that may be sent within a session."""
LONGEST_NAME = 256
"""Characters of a session's or call's name."""


class Stream(NamedTuple):
    """An answer without end."""

    content_type: str
    lines: Reader


class ControlPages:
    """Commands of one `SessionControl`; any thread may ask."""

    def __init__(
        self,
        control: SessionControl,
        drain: Callable[[], str] | None = None,
        media: Callable[[], MediaCounts] | None = None,
    ) -> None:
        """`drain` begins to take no new sessions and says so in a sentence; None where nothing can be drained. `media`
        counts what is sent on."""
        self._control = control
        self._drain = drain
        self._feed = EventFeed(control.listen)
        self._figures = SessionFigures(control, media)

    def figures(self) -> Figures:
        """For metrics."""
        return self._figures.read()

    def close(self) -> None:
        """End the streams."""
        self._feed.close()
        self._figures.close()

    def answer(self, method: str, target: str, body: bytes) -> Reply | Stream:
        """Answer a request: `target` as sent, `body` empty but for POST."""
        segments = _segments(target)
        if segments is None:
            return _NOWHERE
        try:
            return self._get(segments) if method == "GET" else self._post(segments, body)
        except ControlError as error:
            return refusal(409, str(error))
        except SpanrecError as error:
            return refusal(503, str(error))

    def _get(self, segments: Sequence[str]) -> Reply | Stream:
        match segments:
            case ["sessions"]:
                return Reply(200, JSON, sessions_json(self._control.sessions()))
            case ["sessions", which]:
                found = [session for session in self._control.sessions() if fits(session, which)]
                if not found:
                    return refusal(404, "no recording session has this id, Call-ID or call")
                return Reply(200, JSON, sessions_json(found))
            case ["events"]:
                reader = self._feed.reader()
                if reader is None:
                    return refusal(503, "as many as may read the events already do")
                return Stream(LINES, reader)
        return _NOWHERE

    def _post(self, segments: Sequence[str], body: bytes) -> Reply:
        try:
            said = json.loads(body or b"{}")
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            return refusal(400, "the body must be one JSON object")
        match segments:
            case ["calls", call, "start"]:
                return self._start(call, said)
            case ["sessions", which, "stop" | "pause" | "resume" as command] if not said:
                return _ids(getattr(self._control, command)(which))
            case ["sessions", _, "stop" | "pause" | "resume"]:
                return refusal(400, "this takes nothing in its body: send {}")
            case ["sessions", which, "request"]:
                return self._request(which, said)
            case ["drain"] if self._drain is None:
                return refusal(404, "this service follows calls and cannot be drained: stop it, and its sessions end")
            case ["drain"] if self._drain is not None:
                return _told({"text": self._drain()})
        return _NOWHERE

    def _start(self, call: str, said: dict[str, Any]) -> Reply:
        servers, options = said.pop("servers", ""), said.pop("options", {})
        texts = isinstance(options, dict) and all(isinstance(value, str) for value in options.values())
        if said or not isinstance(servers, str) or not texts:
            return refusal(400, 'the body may have "servers", a string, and "options", an object of strings')
        return _ids(self._control.start(call, servers, options))

    def _request(self, which: str, said: dict[str, Any]) -> Reply:
        method, content_type, body = (said.pop(key, "") for key in ("method", "content_type", "body"))
        if said or not all(isinstance(each, str) for each in (method, content_type, body)):
            return refusal(400, 'the body has "method", and may have "content_type" and "body"; all are strings')
        if method not in METHODS:
            return refusal(400, f"a session takes {', '.join(sorted(METHODS))} and no other method")
        if bool(body) is not bool(content_type) or not content_type.isprintable() or not content_type.isascii():
            return refusal(400, "a body and its content type need each other")
        return _told({"answer": self._control.request(which, method, content_type, body.encode("utf-8", "replace"))})


def fits(session: SessionInfo, which: str) -> bool:
    """Whether a session is meant: by its id, its Call-ID, or a call in it."""
    return which in (session.id, session.rs_call_id, *session.calls, *session.call_ids)


def _segments(target: str) -> list[str] | None:
    """The parts behind /v1, decoded; None where a part is no text."""
    try:
        found = [unquote(part, errors="strict") for part in urlsplit(target).path.split("/")[2:]]
    except ValueError:
        return None
    return None if any(not part or len(part) > LONGEST_NAME for part in found) else found


def _ids(sessions: Sequence[str]) -> Reply:
    return _told({"sessions": list(sessions)})


def _told(value: dict[str, Any]) -> Reply:
    return Reply(200, JSON, json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))


_NOWHERE = refusal(404, "there is no such page, or none for this method")
