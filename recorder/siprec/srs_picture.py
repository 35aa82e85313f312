"""A recording session that we receive, as the engine's thread sees it: an immutable picture, taken at each change.

In: nothing. Out: the values that `srs_session` makes and `srs_calls` reads. Times are wall-clock ns, UTC.
"""

from dataclasses import dataclass, field, replace
from enum import StrEnum

from capture.address import Endpoint
from recorder.model import Warning_
from recorder.siprec.received import Received
from recorder.siprec.srs_answer import Line
from recorder.siprec.srs_view import View, shifted


class Over(StrEnum):
    """How a recording session ended."""

    BYE = "bye"
    """The SRC ended it."""
    STOPPED = "stopped"
    """We did."""
    LOST = "lost"
    """The SRC is gone without a word."""


@dataclass(frozen=True, slots=True)
class RsPicture:
    """A recording session."""

    rs: int
    """Running number."""
    at: int
    """When what is new in it came."""
    began: int
    """When its INVITE came."""
    call_id: str
    src: Endpoint
    srs: Endpoint | None
    lines: tuple[Line, ...] = ()
    """Media descriptions in force."""
    view: View = field(default_factory=View)
    paused: bool = False
    """By us."""
    over: Over | None = None
    warnings: tuple[Warning_, ...] = ()
    """Of the session's set-up; all of them, each time."""
    messages: tuple[Received, ...] = ()
    """Bodies that came since the last picture."""


def by_capture_time(picture: RsPicture, correction: int) -> RsPicture:
    """A picture with capture times in place of wall-clock ones; the SRC's clock is taken to be the wall's."""
    view = shifted(picture.view, correction)
    return replace(picture, at=picture.at + correction, began=picture.began + correction, view=view)
