"""What is wrong with a request that came in, before anything is done about it (RFC 3261, sections 8.2 and 16.3).

In: a parsed request. Out: the response that refuses it, None where it is sound. Pure; never raises.
"""

from decoders.sip import SipMessage
from decoders.sip_address import parse_uri, parse_via
from recorder.sip_ua.api import Reply
from recorder.sip_ua.config import AgentConfig

_SINGLE = ("from", "to", "call-id", "cseq", "max-forwards", "content-length", "content-type")
_BROKEN_BODY = ("body truncated", "unusable Content-Length", "contradicting Content-Length")


def answerable(request: SipMessage) -> bool:
    """Whether a response could find its way: without a Via there is nowhere to send it."""
    vias = request.getlist("via")
    return bool(vias) and parse_via(vias[0]) is not None


def malformed(request: SipMessage) -> Reply | None:
    """What stands against the request as a message."""
    notes = request.notes
    if any(note.startswith("SIP version") for note in notes):
        return Reply(505)
    cseq = request.cseq
    # Recording clients are seen that count on in a BYE with the INVITE's CSeq: it ends what it ends.
    if (
        cseq is None
        or (cseq[1] != request.method and (request.method, cseq[1]) != ("BYE", "INVITE"))
        or cseq[0] >= 1 << 31
    ):
        return Reply(400, "Bad CSeq")
    if not request.call_id:
        return Reply(400, "Missing Call-ID")
    if request.from_ is None or request.to is None:
        return Reply(400, "Bad From or To")
    for name in _SINGLE:
        # One of them empty, as SEMS sends Content-Type, contradicts nothing.
        if len({value for value in request.headers.get(name, []) if value}) > 1:
            return Reply(400, f"Several {name.title()} header fields")
    if any(note.startswith(_BROKEN_BODY) for note in notes):
        return Reply(400, "Bad Content-Length")
    if any(character.isspace() for character in request.request_uri or " "):
        return Reply(400, "Bad Request-URI")
    return None


def unacceptable(request: SipMessage, config: AgentConfig) -> Reply | None:
    """What stands against a sound request other than ACK and CANCEL, whatever it asks for."""
    if parse_uri(request.request_uri or "").scheme not in ("sip", "sips", "tel"):
        return Reply(416)
    unknown = [option for option in request.getlist("require") if not config.understands(option)]
    if unknown:
        return Reply(420, headers=[("Unsupported", ", ".join(unknown))])
    coding = (request.get("content-encoding") or "identity").strip().lower()
    if coding != "identity":
        return Reply(415, headers=[("Accept-Encoding", "identity")])
    return None
