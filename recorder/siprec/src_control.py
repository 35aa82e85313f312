"""What an operator can ask of our SRC (`control.SessionControl`), from any thread.

In: commands. Out: their effect in the sessions' loop, waited for at most `control.ANSWER` s. Raises ControlError with
what is wrong.
"""

from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from dataclasses import replace
from typing import Any, TypeVar
from uuid import UUID

from capture.errors import SpanrecError
from recorder.sip_ua.api import Body, RefusedError, UnreachableError
from recorder.siprec.control import ANSWER, ControlError, Listener, SessionInfo
from recorder.siprec.src_decision import Instance, Overrides, Server
from recorder.siprec.src_link import HEADERS
from recorder.siprec.src_media import RecordedCall, recordable
from recorder.siprec.src_session import SrcSession
from recorder.siprec.src_sessions import KnownCall, SrcSessions

T = TypeVar("T")
REQUESTS = ("INFO", "MESSAGE", "NOTIFY", "OPTIONS")
OVERRIDES = {
    "caller-name": "caller_name",
    "caller-aor": "caller_aor",
    "callee-name": "callee_name",
    "callee-aor": "callee_aor",
    "from": "from_",
    "to": "to",
}
"""Options of `start` that say something in place of what was heard; `group` and `media-host` are the others."""


class SrcControl:
    """Commands to `sessions`."""

    def __init__(
        self,
        sessions: SrcSessions,
        run: Callable[[Coroutine[Any, Any, Any]], "Future[Any]"],
        find_servers: Callable[[str], Sequence[Server]],
        usual: Instance,
    ) -> None:
        """`run` has a coroutine run in the sessions' loop. `find_servers` reads a list of servers and raises ValueError
        or SpanrecError; `usual` is how a call is recorded of which rules say nothing."""
        self._sessions = sessions
        self._run = run
        self._find_servers = find_servers
        self._usual = usual

    def sessions(self) -> Sequence[SessionInfo]:
        """All sessions in progress, and those that ended in the last minute."""
        return self._wait(self._infos())

    def start(self, call: str, servers: str = "", options: Mapping[str, str] | None = None) -> Sequence[str]:
        """Record a call in progress."""
        return self._wait(self._start(call, servers, options or {}))

    def stop(self, which: str) -> Sequence[str]:
        """End recording sessions."""
        return self._wait(self._for_each(which, lambda session, call: session.stop(call)))

    def pause(self, which: str) -> Sequence[str]:
        """Record nothing for now."""
        return self._wait(self._for_each(which, lambda session, call: session.set_paused(call, paused=True)))

    def resume(self, which: str) -> Sequence[str]:
        """Record again."""
        return self._wait(self._for_each(which, lambda session, call: session.set_paused(call, paused=False)))

    def request(self, which: str, method: str, content_type: str, body: bytes) -> str:
        """Send a request within a session."""
        if method not in REQUESTS:
            raise ControlError(f"{method[:20]!r} cannot be sent within a session: take one of {', '.join(REQUESTS)}")
        return self._wait(self._request(which, method, Body(content_type, body) if body else None))

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Be told of events, in the sessions' thread."""
        return self._sessions.listen(listener)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        future: Future[T] = self._run(work)
        try:
            return future.result(ANSWER)
        except Late:
            future.cancel()
            raise ControlError(f"no effect within {ANSWER:g} s: look at the list of sessions") from None

    async def _infos(self) -> Sequence[SessionInfo]:
        return self._sessions.infos()

    async def _start(self, call: str, servers: str, options: Mapping[str, str]) -> Sequence[str]:
        known = self._call(call)
        instances = [_instance(each, options) for each in self._instances(known, servers)]
        if not any(recordable(known.picture, each.media) for each in instances):
            raise ControlError("the call has no media yet that could be recorded, or their keys are not known")
        busy = {session.instance.name for session in known.sessions}
        fresh = [each for each in instances if each.name not in busy]
        if not fresh:
            raise ControlError(f"{call} is being recorded already")
        try:
            begun = self._sessions.record(known, fresh, self._sessions.clock())
        except SpanrecError as error:
            raise ControlError(str(error)) from error
        return [session.id for session in begun]

    def _instances(self, known: KnownCall, servers: str) -> Sequence[Instance]:
        decided = self._sessions.decide(known.picture).instances
        if not servers:
            instances = decided or (self._usual,)
            if not any(each.servers for each in instances):
                raise ControlError("no recording server is named: name one, or give the settings some")
            return instances
        try:
            found = tuple(self._find_servers(servers))
        except (ValueError, SpanrecError) as error:
            raise ControlError(f"servers: {error}") from error
        usual = decided[0] if decided else self._usual
        return (replace(usual, servers=found, persistent=False, name=f"to {found[0].uri}"[:60]),)

    async def _for_each(self, which: str, act: Callable[[SrcSession, RecordedCall | None], None]) -> Sequence[str]:
        found = list(self._matching(which))
        if not found:
            raise ControlError(f"no recording session fits {which[:80]!r}")
        for session, call in found:
            act(session, call)
        return [session.id for session, _ in found]

    async def _request(self, which: str, method: str, body: Body | None) -> str:
        found = list(dict.fromkeys(session for session, _ in self._matching(which)))
        if len(found) != 1:
            raise ControlError(f"{len(found)} recording sessions fit {which[:80]!r}; a request goes to one")
        link = found[0].link
        if link is None or link.session is None:
            raise ControlError(f"{found[0].id} is at no server now ({found[0].state})")
        try:
            answer = await link.session.request(method, body, HEADERS[:1])
        except RefusedError as refusal:
            return f"{refusal.status} {refusal.reason}"
        except UnreachableError as error:
            raise ControlError(str(error)) from error
        return f"{answer.status} {answer.reason}"

    def _matching(self, which: str) -> Iterator[tuple[SrcSession, RecordedCall | None]]:
        """Sessions that are meant, with the call that is, where it is one of several."""
        for session in self._sessions.sessions.values():
            link = session.link
            dialog = link.session.call_id if link is not None and link.session is not None else None
            if which in (session.id, dialog):
                yield session, None
                continue
            for call in session.calls:
                if call.until is None and which in (str(call.picture.id), call.picture.call_id):
                    yield session, call

    def _call(self, which: str) -> KnownCall:
        for known in self._sessions.calls.values():
            if which in (str(known.picture.id), known.picture.call_id):
                return known
        raise ControlError(f"no call in progress is {which[:80]!r}")


def _instance(usual: Instance, options: Mapping[str, str]) -> Instance:
    """An instance with what an operator says of it."""
    said: dict[str, Any] = {}
    instance = usual
    for name, value in options.items():
        if "\r" in value or "\n" in value:
            raise ControlError(f"{name}: a line break cannot be in it")
        if name in OVERRIDES:
            said[OVERRIDES[name]] = value
        elif name == "group":
            try:
                said["group"] = UUID(value)
            except ValueError:
                raise ControlError(f"group: {value[:60]!r} is no UUID") from None
        elif name == "media-host":
            instance = replace(instance, media_host=value)
        else:
            there = ", ".join([*OVERRIDES, "group", "media-host"])
            raise ControlError(f"{name[:40]!r} is no option: there are {there}")
    overrides: Overrides = replace(usual.overrides, **said)
    return replace(instance, overrides=overrides)
