"""The log of a service: one line an event, JSON for journald, coloured on a terminal.

In: an event (a stable name in kebab-case) and fields, from any thread. Out: lines on a stream. What comes from the wire
is made printable and short, what looks like a secret is left out. A warning or error that repeats is told at most once
a minute, with how often. A stream that fails stops nothing. Logging is the service's: capture and decoders never log.

    log = open_log(sys.stderr, environment=os.environ)
    with about_call(call.id, call.call_id):
        log.logger.info("call-recorded", directory=..., text="...")
    log.report_repeats()                                            # about once a second
"""

import json
import logging
import os
import sys
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple, TextIO

import structlog
from structlog.typing import FilteringBoundLogger, Processor

from recorder.log_text import clean_field

REPEAT = 60.0
"""s within which the same warning is told once."""
MOST_KEYS = 256
"""Warnings that are remembered."""
LAST_LINES = 50
"""Of a traceback."""
_WORTH = ("level", "event", "code", "source", "call", "call_id", "text")
"""Fields that come first, behind the time."""
_PRIORITY = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
"""syslog(3)."""

Event = MutableMapping[str, Any]


class Level(StrEnum):
    """From which level on events are told."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Form(StrEnum):
    """How a line looks."""

    JSON = "json"
    JOURNAL = "journal"
    """JSON behind a priority in angle brackets, which journald takes off (sd-daemon(3))."""
    TERMINAL = "terminal"


@dataclass(frozen=True, slots=True)
class ServiceLog:
    """An open log."""

    logger: FilteringBoundLogger
    _repeats: "_Repeats"

    def report_repeats(self, *, all_of_them: bool = False) -> None:
        """Say how often what was held back has happened, where its minute is over; at the end, all of it."""
        for key, count in self._repeats.due(all_of_them):
            told = {name: value for name, value in (("code", key.code), ("source", key.source)) if value is not None}
            self.logger.log(getattr(logging, key.level.upper()), key.event, repeated=count, **told)

    def adopt_libraries(self) -> None:
        """From now on, what libraries log with the standard library's logging stands here, from warnings on."""
        root = logging.getLogger()
        root.handlers[:] = [_FromLibrary(self.logger)]
        root.setLevel(logging.WARNING)


def open_log(
    stream: TextIO,
    *,
    level: Level = Level.INFO,
    form: Form | None = None,
    environment: Mapping[str, str] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> ServiceLog:
    """A log on `stream`, in the form that suits it unless one is named."""
    form = form or _suited(stream, environment or {})
    repeats = _Repeats(clock)
    processors: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        repeats,
        _add_exception,
        _clean,
        _to_terminal(environment or {}) if form is Form.TERMINAL else _to_json(form),
    ]
    logger = structlog.wrap_logger(
        _Lines(stream),
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level.value),
        context_class=dict,
    ).bind()  # what is not bound makes itself anew for every line
    return ServiceLog(logger, repeats)


def about_call(call: object, call_id: str | None) -> AbstractContextManager[None]:
    """All that this thread logs meanwhile is about a call. Where another thread is, bind `call` and `call_id` there."""
    return structlog.contextvars.bound_contextvars(call=str(call), call_id=call_id)


class _Key(NamedTuple):
    """What makes two warnings the same."""

    level: str
    event: str
    code: str | None
    source: str | None


@dataclass(slots=True)
class _Window:
    since: float
    held_back: int = 0


@dataclass(slots=True)
class _Repeats:
    """A processor that lets a warning through once a minute."""

    clock: Callable[[], float]
    _windows: OrderedDict[_Key, _Window] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, logger: object, method: str, event: Event) -> Event:
        if event["level"] in ("debug", "info"):
            return event
        code, source = event.get("code"), event.get("source")
        key = _Key(
            event["level"],
            str(event["event"]),
            None if code is None else str(code),
            None if source is None else str(source),
        )
        with self._lock:
            now = self.clock()
            window = self._windows.get(key)
            if window is not None and now - window.since < REPEAT:
                window.held_back += 1
                raise structlog.DropEvent
            self._windows[key] = _Window(now)
            self._windows.move_to_end(key)
            if len(self._windows) > MOST_KEYS:
                self._windows.popitem(last=False)
        if window is not None and window.held_back:
            event["repeated"] = window.held_back
        return event

    def due(self, all_of_them: bool) -> list[tuple[_Key, int]]:
        """What was held back, to be told now; it is forgotten here."""
        with self._lock:
            now = self.clock()
            over = [key for key, w in self._windows.items() if all_of_them or now - w.since >= REPEAT]
            windows = [(key, self._windows.pop(key)) for key in over]
        return [(key, window.held_back) for key, window in windows if window.held_back]


class _Lines:
    """A stream, a line at a time; one that cannot be written to is nobody's reason to stop."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def _write(self, line: str) -> None:
        with self._lock:
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except (OSError, ValueError):
                pass

    debug = info = warning = error = critical = _write


class _FromLibrary(logging.Handler):
    """Records of the standard library's logging."""

    def __init__(self, logger: FilteringBoundLogger) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:  # a library's format string that does not fit its arguments
            text = str(record.msg)
        level = max(logging.DEBUG, min(record.levelno // 10 * 10, logging.CRITICAL))
        self._logger.log(level, "library", source=record.name, text=text, exc_info=record.exc_info)


def _suited(stream: TextIO, environment: Mapping[str, str]) -> Form:
    """JOURNAL_STREAM tells device and inode of the stream that journald gave us (systemd.exec(5))."""
    if stream.isatty():
        return Form.TERMINAL
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return Form.JSON
    journal = environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
    return Form.JOURNAL if journal else Form.JSON


def _add_exception(logger: object, method: str, event: Event) -> Event:
    """A traceback as lines, without the values of variables."""
    found = event.pop("exc_info", None)
    if found is True:
        found = sys.exc_info()
    error = found[1] if isinstance(found, tuple) else found
    if isinstance(error, BaseException):
        event["exception"] = "".join(traceback.format_exception(error)).splitlines()[-LAST_LINES:]
    return event


def _clean(logger: object, method: str, event: Event) -> Event:
    """The time, and the fields in order as they may be told."""
    told: Event = {"time": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")}
    event.pop("time", None)
    for name in _WORTH:
        if name in event:
            told[name] = clean_field(name, event.pop(name))
    for name, value in event.items():
        told[name] = clean_field(name, value)
    return told


def _to_json(form: Form) -> Processor:
    encode = json.JSONEncoder(ensure_ascii=False).encode

    def render(logger: object, method: str, event: Event) -> str:
        line = encode(event)
        return f"<{_PRIORITY.get(event['level'], 6)}>{line}" if form is Form.JOURNAL else line

    return render


def _to_terminal(environment: Mapping[str, str]) -> Processor:
    colour = "NO_COLOR" not in environment
    console = structlog.dev.ConsoleRenderer(
        colors=colour,
        timestamp_key="time",
        sort_keys=False,
        pad_event_to=24,
        exception_formatter=structlog.dev.plain_traceback,
    )

    def render(logger: object, method: str, event: Event) -> str:
        lines = event.pop("exception", None)
        event["time"] = event["time"][11:23]
        if lines is not None:
            event["exception"] = "\n".join(lines)
        return str(console(logger, method, event))

    return render
