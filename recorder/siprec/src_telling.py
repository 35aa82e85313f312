"""What a recording session of ours tells of itself: events, which stand in the log and go to whoever listens.

In: what happened, to which of its calls. Out: `SessionEvent`s with the session's names, its server and its call's. It
decides nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from recorder.siprec.control import EventKind, SessionEvent
from recorder.siprec.picture import CallPicture
from recorder.siprec.src_connect import Surroundings
from recorder.siprec.src_decision import Instance
from recorder.siprec.src_media import RecordedCall


@dataclass(slots=True, eq=False)
class Telling:
    """Of one session."""

    session: str
    """Its id."""
    instance: Instance
    around: Surroundings
    calls: list[RecordedCall]
    """Of the session, which adds to it and takes away."""
    peer: str
    """URI of the server it is at, or was at last."""
    first: CallPicture | None = None
    """Of the call that it began with."""

    def tell(
        self,
        kind: EventKind,
        text: str,
        details: Mapping[str, str | int | float | None] | None = None,
        *,
        call: RecordedCall | None = None,
    ) -> None:
        """Something happened, to this call or to the whole session."""
        about = call.picture if call is not None else self.calls[0].picture if self.calls else self.first
        self.around.tell(
            SessionEvent(
                kind=kind,
                at=self.around.clock(),
                session=self.session,
                call=str(about.id) if about is not None else "",
                call_id=(about.call_id or "") if about is not None else "",
                peer=self.peer,
                text=text,
                details={**(details or {}), **({"instance": self.instance.name} if self.instance.name else {})},
            )
        )
