"""Commands to several roles of one process: the sessions of our SRC and those of our SRS in one list.

In: a `SessionControl` of each role. Out: one `SessionControl`; ids of sessions carry the role, `src:r1`, for each role
counts its own. A command without one goes to every role that knows what it names.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from recorder.siprec.control import ControlError, Listener, Role, SessionControl, SessionEvent, SessionInfo


class JointControl:
    """Speaks for all roles."""

    def __init__(self, roles: Mapping[Role, SessionControl]) -> None:
        self._roles = roles

    def sessions(self) -> Sequence[SessionInfo]:
        """See `SessionControl`."""
        return [
            replace(info, id=f"{role}:{info.id}")
            for role, control in self._roles.items()
            for info in control.sessions()
        ]

    def start(self, call: str, servers: str = "", options: Mapping[str, str] | None = None) -> Sequence[str]:
        """Record a call at servers, or where it is `srs:...`, have a client send it to us."""
        role, rest = self._role(call)
        if role is None:
            role = Role.SRC if Role.SRC in self._roles else next(iter(self._roles))
        return [f"{role}:{each}" for each in self._roles[role].start(rest, servers, options)]

    def stop(self, which: str) -> Sequence[str]:
        """See `SessionControl`."""
        return self._each(which, lambda control, rest: control.stop(rest))

    def pause(self, which: str) -> Sequence[str]:
        """See `SessionControl`."""
        return self._each(which, lambda control, rest: control.pause(rest))

    def resume(self, which: str) -> Sequence[str]:
        """See `SessionControl`."""
        return self._each(which, lambda control, rest: control.resume(rest))

    def request(self, which: str, method: str, content_type: str, body: bytes) -> str:
        """See `SessionControl`."""
        role, rest = self._role(which)
        refused: ControlError | None = None
        for each, control in self._roles.items():
            if role in (None, each):
                try:
                    return control.request(rest, method, content_type, body)
                except ControlError as error:
                    refused = error
        raise refused or ControlError(f"No recording session is known as {which!r}.")

    def listen(self, listener: Listener) -> Callable[[], None]:
        """See `SessionControl`."""

        def told_by(role: Role) -> Listener:
            def tell(event: SessionEvent) -> None:
                listener(replace(event, session=f"{role}:{event.session}" if event.session else ""))

            return tell

        ends = [control.listen(told_by(role)) for role, control in self._roles.items()]

        def end() -> None:
            for each in ends:
                each()

        return end

    def _role(self, which: str) -> tuple[Role | None, str]:
        for role in self._roles:
            if which.startswith(f"{role}:"):
                return role, which[len(role) + 1 :]
        return None, which

    def _each(self, which: str, do: Callable[[SessionControl, str], Sequence[str]]) -> Sequence[str]:
        role, rest = self._role(which)
        found: list[str] = []
        refused: ControlError | None = None
        for each, control in self._roles.items():
            if role in (None, each):
                try:
                    found += [f"{each}:{name}" for name in do(control, rest)]
                except ControlError as error:
                    refused = error
        if not found:
            raise refused or ControlError(f"No recording session and no call is known as {which!r}.")
        return found
