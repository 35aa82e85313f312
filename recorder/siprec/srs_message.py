"""What a SIP message of an SRC is, looked at by its recording server: marks, bodies, what it asks for that we lack.

In: parsed messages, untrusted. Out: values, and the refusal where a request cannot be served. SRCs are taken as they
come (RFC 7866 with what vendors make of it); only what would be misunderstood is refused.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from decoders.multipart import BodyPart
from decoders.sip import SipMessage
from decoders.sip_headers import parse_params
from recorder.model import Warning_
from recorder.sip_ua.api import Header
from recorder.siprec.admission import Refusal
from recorder.siprec.received import Received
from recorder.siprec_seen import CISCO_PARTICIPANT, METADATA_TYPES

ACCEPT: Header = ("Accept", "application/sdp, application/rs-metadata+xml, application/rs-metadata, multipart/mixed")
CONTACT = "+sip.srs"
"""Feature tag of our Contact (RFC 7866, section 11.1.2)."""
_SRC = re.compile(r"[;<]\s*(?:\+sip\.src|src)(?![\w.-])", re.IGNORECASE)
"""As a parameter of the Contact, in its URI, and as early drafts had it."""
_SRS = re.compile(r"[;<]\s*\+sip\.srs(?![\w.-])", re.IGNORECASE)
_SUPPORTED = frozenset({"siprec", "timer", "100rel", "record-aware"})
"""Require: no provisional response of ours but 100 is ever sent, so that 100rel asks nothing of us."""
MAX_UNSUPPORTED = 8


class Strictness(StrEnum):
    """What makes an INVITE a recording session."""

    STRICT = "strict"
    """`Require: siprec` and `+sip.src` in the Contact, as RFC 7866, section 6.2, has it."""
    LENIENT = "lenient"
    """Either, or recording metadata: some SRCs leave one out."""
    ANYTHING = "anything"
    """A call without any mark is recorded too."""


class Marks(NamedTuple):
    """Signs of a recording session (RFC 7866, sections 6.1.1 and 6.2)."""

    required: bool
    """Require: siprec."""
    tagged: bool
    """`+sip.src` in its Contact: an SRC."""
    server: bool
    """`+sip.srs`: a recording server."""


def marks_of(message: SipMessage) -> Marks:
    """The signs that a message gives."""
    contacts = message.headers.get("contact", ())
    return Marks(
        required=message.requires("siprec"),
        tagged=any(_SRC.search(value) for value in contacts),
        server=any(_SRS.search(value) for value in contacts),
    )


def why_not_recorded(message: SipMessage, strictness: Strictness) -> tuple[Refusal, Sequence[Header]] | None:
    """Why an INVITE begins no recording session here, None where it does."""
    required, tagged, server = marks_of(message)
    extension: Sequence[Header] = [("Require", "siprec")]
    if server:
        return Refusal(403, "This Is A Recording Server", "not-src"), ()
    if strictness is Strictness.STRICT:
        if not required:
            return Refusal(421, "Extension Required", "not-siprec"), extension
        if not tagged:
            return Refusal(403, "Not A Recording Client", "not-siprec"), ()
    elif strictness is Strictness.LENIENT and not (required or tagged or _tells(message)):
        return Refusal(421, "Extension Required", "not-siprec"), extension
    return None


def marks_missing(message: SipMessage) -> list[Warning_]:
    """What a reader of the recording must know of an INVITE (or of an SRC's 2xx) that was taken all the same."""
    marks = marks_of(message)
    required = marks.required or message.status is not None
    missing = [text for there, text in ((required, "Require: siprec"), (marks.tagged, "+sip.src")) if not there]
    if not missing:
        return []
    return [Warning_("siprec-marks", f"The SRC began with no {' and no '.join(missing)} (RFC 7866, section 6.1.1).")]


def _tells(message: SipMessage) -> bool:
    """It carries metadata, or what CUBE sends in their place."""
    return CISCO_PARTICIPANT in message.headers or any(True for _ in metadata_of(message))


def why_unsupported(message: SipMessage) -> tuple[Refusal, Sequence[Header]] | None:
    """Extensions and bodies of a request that are not understood (RFC 3261, sections 8.2.2.3 and 8.2.3; RFC 5621)."""
    lacking = [tag for tag in message.getlist("require") if tag.lower() not in _SUPPORTED][:MAX_UNSUPPORTED]
    if lacking:
        named = ", ".join(tag for tag in lacking if tag.isascii() and tag.isprintable())
        return Refusal(420, "Bad Extension", "extension"), [("Unsupported", named)]
    encoding = (message.get("content-encoding") or "identity").strip().lower()
    if encoding != "identity":
        return Refusal(415, "Unsupported Media Type", "body"), [("Accept-Encoding", "identity")]
    if any(_required(part) and not _understood(part) for part in message.parts()):
        return Refusal(415, "Unsupported Media Type", "body"), [ACCEPT]
    return None


def metadata_of(message: SipMessage) -> Iterator[tuple[bytes, str | None]]:
    """Each body of metadata, and the character set that its Content-Type names."""
    return metadata_in(message.parts())


def metadata_in(parts: Iterable[BodyPart]) -> Iterator[tuple[bytes, str | None]]:
    """The same of the parts of a body."""
    for part in parts:
        kind = part.headers.get("content-type", "")
        plain = part.disposition == "recording-session" and part.content_type != "application/sdp"
        if part.content_type in METADATA_TYPES or (plain and part.data.lstrip()[:1] == b"<"):
            yield part.data, parse_params(kind.partition(";")[2]).get("charset")


def has_description(message: SipMessage) -> bool:
    """Whether a message means to describe media, soundly or not."""
    return any(part.content_type == "application/sdp" for part in message.parts()) or message.sdp() is not None


def received(message: SipMessage, at: int, source: str, ports: Sequence[int] = ()) -> Received | None:
    """What is kept of a message, None where it has no body; of a BYE also then, that it came."""
    if not message.body and message.method != "BYE":
        return None
    return Received(
        at=at,
        call_id=message.call_id or "",
        source=source,
        what=message.method or str(message.status or ""),
        content_type=message.get("content-type") or "",
        body=message.body,
        disposition=message.get("content-disposition") or "",
        ports=tuple(ports),
    )


def _required(part: BodyPart) -> bool:
    """It says itself that it must be understood; that this is the default (RFC 3261, section 20.11) few SRCs know."""
    parameters = part.headers.get("content-disposition", "").partition(";")[2].lower()
    return "required" in "".join(parameters.split()).partition("handling=")[2][:10]


def _understood(part: BodyPart) -> bool:
    return part.content_type in ("application/sdp", "", *METADATA_TYPES) or part.disposition == "recording-session"
