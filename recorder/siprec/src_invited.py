"""Recording sessions that a server asks us for (RFC 7866, sections 6.1.1, 7.2 and 9.1).

In: an INVITE outside a dialog. Out: a refusal, or a session with the calls in progress that it asks for, to which later
ones are added: those of the number in the user part of the Request-URI, or all for `*`. It has both marks of such an
INVITE or is none; and whoever sends it has been authenticated before any media goes there.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import unquote

from capture.errors import SpanrecError
from recorder.model import Transport
from recorder.naming import user_part
from recorder.sip_ua.api import Incoming, UnreachableError
from recorder.siprec.mime_write import metadata_body, sdp_body, write_body
from recorder.siprec.picture import CallPicture
from recorder.siprec.snapshot import complete, elements_of
from recorder.siprec.src_decision import Instance, OnBye, Protection, Server
from recorder.siprec.src_link import FEATURE
from recorder.siprec.src_media import recordable
from recorder.siprec.src_security import sends_srtp, why_unsafe
from recorder.siprec.src_session import SrcSession
from recorder.siprec.srs_message import marks_of

if TYPE_CHECKING:
    from recorder.siprec.src_sessions import SrcOptions, SrcSessions

ALL = "*"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a server asked for."""

    session: SrcSession
    number: str
    """User part of an address of record, or ALL."""

    def fits(self, picture: CallPicture) -> bool:
        """Whether a call is meant, and may be heard by who asked."""
        if not recordable(picture, self.session.instance.media):
            return False
        server = self.session.instance.servers[0]
        if why_unsafe(server, encrypted=any(stream.encrypted for stream in picture.streams)):
            return False
        return self.number == ALL or any(
            user_part(aor) == self.number for party in picture.parties for aor, _ in party.names
        )


def invited(sessions: "SrcSessions", incoming: Incoming, options: "SrcOptions") -> Wanted | None:
    """Answer an INVITE of a server; gives what it is to have from now on, None where it was refused."""
    refusal = _refusal(incoming, options)
    if refusal is not None:
        incoming.refuse(*refusal)
        return None
    assert options.invited is not None
    number = unquote(user_part(incoming.message.request_uri))
    session = sessions.new_session(_instance(options.invited, incoming))
    wanted = Wanted(session, number)
    host = session.instance.media_host or incoming.local_address
    try:
        session.media.begin(host, secure=partial(_secure, session.instance.servers[0]))
        for known in sessions.calls.values():
            sessions.join_wanted(wanted, known)
        elements = elements_of(session.media.told(call) for call in session.calls)
        body = write_body([sdp_body(session.media.offer.offer()), metadata_body(complete(elements))])
        dialog = incoming.accept(body, contact_params=(FEATURE,))
    except (SpanrecError, UnreachableError) as error:
        session.note = str(error)
        session.abandon()
        if not incoming.cancelled:
            incoming.refuse(503)
        return None
    session.start_with(dialog, elements)
    return wanted


def _refusal(incoming: Incoming, options: "SrcOptions") -> tuple[int, str] | None:
    """Why it is not answered with calls: status and phrase."""
    marks = marks_of(incoming.message)
    if not (marks.required and marks.server):
        return 403, "Not A Recording Client For You"
    if options.invited is None or not options.admit(incoming):
        return 403, "Not Authorized"
    if incoming.message.sdp() is not None:
        return 488, "Offer Not Expected From A Recording Server"
    return None


def _instance(usual: Instance, incoming: Incoming) -> Instance:
    """The instance of a session that a server began: it goes nowhere else, and stays while no call is there."""
    contact = incoming.message.contact or incoming.message.from_
    uri = contact.uri if contact is not None else f"sip:{incoming.peer.address}"
    hidden = incoming.peer.transport is Transport.TLS
    if hidden and "transport=" not in uri.lower() and not uri.lower().startswith("sips:"):
        uri = f"{uri};transport=tls"
    server = Server(uri, protection=Protection.SAME)
    name = usual.name or "asked-for"
    return replace(usual, name=name, servers=(server,), persistent=True, on_bye=OnBye.END, spool=False)


def _secure(server: Server, encrypted: bool) -> bool:
    return sends_srtp(server, encrypted=encrypted)
