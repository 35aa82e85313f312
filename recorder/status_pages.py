"""What the status server answers to a path.

In: the path of a GET request. Out: a status, a type, octets, made of what a `StatusProvider` tells. Paths are compared
with a closed list and never become names of anything; no request changes anything. `status_server` does the rest.
"""

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit
from uuid import UUID

from recorder.document import format_time
from recorder.health import Health, examine
from recorder.metrics import Exposition
from recorder.siprec.figures import Figures
from recorder.status import LiveCall, StatusError, StatusProvider
from recorder.status_json import call_json, calls_json, ladder_json, snapshot_json

JSON = "application/json"


class Reply(NamedTuple):
    """What is sent."""

    status: int
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class _Told:
    """Calls as they were last told, for all who ask before there are others."""

    calls: Sequence[LiveCall]
    body: bytes


class Pages:
    """All pages of one provider; any thread may ask."""

    def __init__(self, provider: StatusProvider, figures: Callable[[], Figures] | None = None) -> None:
        """`figures` of recording sessions, where there are any."""
        self._provider = provider
        self._exposition = Exposition(provider, figures)
        self._told: _Told | None = None
        self._telling = threading.Lock()

    def answer(self, target: str, accept: str = "") -> Reply:
        """Answer the request target of a GET; `accept` is its Accept header."""
        try:
            return self._answer(_segments(target), accept)
        except StatusError as error:
            return refusal(503, str(error))

    def _answer(self, segments: tuple[str, ...], accept: str) -> Reply:
        match segments:
            case ("metrics",):
                content_type, body = self._exposition.expose(accept)
                return Reply(200, content_type, body)
            case ("health",):
                health = self._health()
                return _health_reply(health, health.ok)
            case ("health", "live"):
                health = self._health()
                return _health_reply(health, health.live)
            case ("health", "ready"):
                health = self._health()
                return _health_reply(health, health.ready)
            case ("status",):
                return Reply(200, JSON, snapshot_json(self._provider.snapshot()))
            case ("calls",):
                return Reply(200, JSON, self._calls())
            case ("calls", name) if (call := _identifier(name)) is not None:
                found = next((live for live in self._provider.calls() if live.id == call), None)
                return _no_call() if found is None else Reply(200, JSON, call_json(found))
            case ("calls", name, "ladder") if (call := _identifier(name)) is not None:
                steps = self._provider.ladder(call)
                return _no_call() if steps is None else Reply(200, JSON, ladder_json(steps))
        return refusal(404, "there is no such page")

    def _health(self) -> Health:
        return examine(self._provider.snapshot(), self._provider.age())

    def _calls(self) -> bytes:
        calls = self._provider.calls()
        with self._telling:
            if self._told is None or self._told.calls is not calls:
                self._told = _Told(calls, calls_json(calls))
            return self._told.body


def personal(target: str) -> bool:
    """Whether a page tells who calls whom, or takes commands."""
    return _segments(target)[:1] == ("calls",) or commanding(target)


def commanding(target: str) -> bool:
    """Whether a path is one of commands: they are not answered here."""
    return target.startswith("/v1/")


def refusal(status: int, text: str) -> Reply:
    """An answer that says why there is none."""
    return Reply(status, JSON, json.dumps({"error": text}).encode())


def _segments(target: str) -> tuple[str, ...]:
    try:
        path = urlsplit(target).path
    except ValueError:
        return ()
    return tuple(path.removeprefix("/").split("/"))


def _identifier(text: str) -> str | None:
    """An `id` as it is written, None for what is none."""
    try:
        identifier = str(UUID(text))
    except ValueError:
        return None
    return identifier if identifier == text else None


def _no_call() -> Reply:
    return refusal(404, "no call in progress has this id; when it has ended, `spanrec calls show` tells it")


def _health_reply(health: Health, well: bool) -> Reply:
    alarms = [
        {"code": a.code, "severity": a.code.severity, "since": format_time(a.since), "text": a.text}
        for a in health.alarms
    ]
    told = {
        "ok": health.ok,
        "live": health.live,
        "ready": health.ready,
        "version": health.version,
        "uptime": round(health.uptime, 1),
        "state_age": round(health.state_age, 3),
        "last_packet_age": None if health.last_packet_age is None else round(health.last_packet_age, 3),
        "disk_delay": None if health.delay is None else {"last": health.delay.last, "worst": health.delay.worst},
        "alarms": alarms,
    }
    return Reply(200 if well else 503, JSON, json.dumps(told, ensure_ascii=False).encode("utf-8", "replace"))
