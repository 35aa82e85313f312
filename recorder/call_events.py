"""What the call tracker says to the media engine.

In: nothing. Out: the event types of `CallTracker`. Order matters: a call starts before its endpoints are offered, and
nothing follows its `CallFinished`. Between `CallEnded` and `CallFinished` a call may go on, when its caller tries again
(401, 422, 302...) or an answer overrides a refusal: then endpoints are offered anew.
"""

from dataclasses import dataclass

from capture.address import Endpoint
from recorder.model import Call, MediaEndpoint


@dataclass(frozen=True, slots=True)
class CallStarted:
    """A Call-ID became a call; `call.recording_session` is set where it is somebody else's recording session."""

    call: Call


@dataclass(frozen=True, slots=True)
class EndpointOffered:
    """A session description announced where its author wants media; valid from `endpoint.since` on."""

    endpoint: MediaEndpoint
    signalled_from: Endpoint
    """Source of the message: at the author's own hop its address before or behind NAT."""


@dataclass(frozen=True, slots=True)
class EndpointReleased:
    """An endpoint no longer belongs to the call: its fork lost, or the offer was refused."""

    endpoint: MediaEndpoint
    at: int


@dataclass(frozen=True, slots=True)
class CallAnswered:
    """The first 2xx to an initial INVITE."""

    call: Call
    at: int


@dataclass(frozen=True, slots=True)
class CallEnded:
    """BYE, or the final refusal at the caller's own hop. Media may still be on its way."""

    call: Call
    at: int


@dataclass(frozen=True, slots=True)
class CallFinished:
    """Nothing more will be learnt: state, times and warnings stand, and the tracker has let the call go."""

    call: Call


CallEvent = CallStarted | EndpointOffered | EndpointReleased | CallAnswered | CallEnded | CallFinished
