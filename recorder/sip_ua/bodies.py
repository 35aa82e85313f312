"""Which bodies take part in offer/answer (RFC 3264; RFC 6337).

In: bodies of ours, messages. Out: whether there is a session description in it, and that alone.
"""

from decoders.multipart import media_type, split_body
from decoders.sip import SipMessage
from recorder.sip_ua.api import Body

SDP = "application/sdp"


def describes_session(message: SipMessage) -> bool:
    """Whether a message carries an offer or an answer."""
    return bool(message.body) and message.sdp() is not None


def session_description(body: Body | None) -> Body | None:
    """The session description of a body of ours, without what comes with it; None where it has none."""
    if body is None:
        return None
    kind = media_type(body.content_type)
    if kind == SDP:
        return Body(SDP, body.data)
    if not kind.startswith("multipart/"):
        return None
    if body.parts:
        return next((Body(SDP, part.data) for part in body.parts if media_type(part.content_type) == SDP), None)
    parts = split_body(body.data, body.content_type, None, [])
    return next((Body(SDP, part.data) for part in parts if part.content_type == SDP), None)
