"""Which recording sessions are to be asked something now: those that are silent, those without metadata.

In: sessions, the time, when each gave a sign of life. Out: what is to be asked, as coroutines that the caller runs.
"""

from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, Protocol

from recorder.siprec.srs_session import ServerSession

PROBES = 64
"""Sessions that are probed at once."""


class LastSign(Protocol):
    """Tells when a session last gave a sign of life."""

    def __call__(self, session: ServerSession, *, ports: bool) -> int:
        """ns; `ports`: by what came to its ports."""
        ...


def asks_due(
    sessions: Sequence[ServerSession], now: int, silence: float, snapshot_after: float, last: LastSign
) -> Iterator[Coroutine[Any, Any, None]]:
    """What to ask at `now`, ns. `silence`: s after which a session is asked whether it is there; `snapshot_after`: s
    after which one without metadata is asked for them."""
    probes = 0
    for session in sessions:
        if not session.state.complete and not session.asked:
            waited = now - session.began >= snapshot_after * 1e9
            if waited or session.state.documents:
                yield session.ask_for_snapshot()
        if now - last(session, ports=False) < silence * 1e9 or probes >= PROBES or session.probing:
            continue
        # Ports are asked only where all else is silent: they are many.
        if now - last(session, ports=True) >= silence * 1e9:
            probes += 1
            yield session.probe()
