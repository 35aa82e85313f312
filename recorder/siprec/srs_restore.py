"""What an earlier run had heard of a call that an SRC was sending, from the messages that it kept.

In: a working directory. Out: the last picture of the recording session as far as the messages tell it, without lines:
the sockets of that run are gone.
"""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from capture.address import Endpoint, parse_endpoint
from decoders.multipart import split_body
from recorder.siprec.received import read, session_of
from recorder.siprec.srs_message import metadata_in
from recorder.siprec.srs_metadata import MetadataState
from recorder.siprec.srs_picture import Over, RsPicture
from recorder.siprec.srs_view import Communication, View


class Remembered(NamedTuple):
    """A call of an earlier run."""

    first: RsPicture
    """As it was told first: whether the call was over then already, who took part."""
    picture: RsPicture
    session: Communication | None
    """Which of the picture's it is."""
    over: Over
    """How its recording sessions ended: by a BYE of each, or nobody knows."""


def remember(directory: Path, number: int) -> Remembered | None:
    """The call whose working directory that is; None where no SRC sent it. `number` is given to its session."""
    messages = list(read(directory))
    if not messages:
        return None
    state = MetadataState()
    views: list[View] = []
    for message in messages:
        for data, charset in metadata_in(split_body(message.body, message.content_type, message.disposition, [])):
            state.take(data, charset)
            views += [state.view()] if not views else []
    view, key = state.view(), session_of(directory)
    first, last = messages[0], messages[-1]
    session = next((each for each in view.sessions if each.id == key), next(iter(view.sessions), None))
    host, _, port = first.source.rpartition(":")
    source = parse_endpoint(host, int(port)) if port.isdecimal() and len(port) < 6 else None
    picture = RsPicture(
        rs=number,
        at=last.at,
        began=first.at,
        call_id=first.call_id,
        src=source or Endpoint(0, 0, 0),
        srs=None,
        view=view,
    )
    begun = replace(picture, at=first.at, view=views[0] if views else view)
    in_progress = {message.call_id: message.what != "BYE" for message in messages}
    return Remembered(begun, picture, session, Over.LOST if any(in_progress.values()) else Over.BYE)
