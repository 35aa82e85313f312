"""One recording session with us, from its INVITE to its end.

In: the messages of one dialog, by the user agent; commands. Out: answers, media ports opened and agreed on, a picture
for the engine's thread at each change. It lives in the sessions' loop. An SRC that goes wrong costs its own session at
most: what cannot be taken is refused and the session goes on as it was; metadata that cannot be read never end it.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from secrets import randbits, token_bytes
from typing import Protocol

from capture.address import Endpoint, parse_endpoint
from capture.errors import SpanrecError
from capture.media_ports import MediaPort
from decoders.sdp import SessionDescription
from decoders.sip import SipMessage
from recorder.model import Warning_
from recorder.sip_ua.api import (
    Body,
    Ended,
    EndedBy,
    Header,
    RefusedError,
    Reply,
    Session,
    UnreachableError,
)
from recorder.siprec.admission import Refusal
from recorder.siprec.port_monitor import PortState
from recorder.siprec.port_shares import PortShares, SharedPorts, ShareSpent
from recorder.siprec.received import Received
from recorder.siprec.receiver_reports import PortTerms
from recorder.siprec.sdp_write import write_sdp
from recorder.siprec.srs_answer import Answerer, Line, OfferError
from recorder.siprec.srs_message import ACCEPT, has_description, metadata_of, received, why_unsupported
from recorder.siprec.srs_metadata import MetadataState
from recorder.siprec.srs_picture import Over, RsPicture
from recorder.siprec.srs_view import View

SDP = "application/sdp"
SNAPSHOT = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<requestsnapshot xmlns="urn:ietf:params:xml:ns:recording:1">\n'
    b'  <requestreason xml:lang="en">The state of the metadata is not known</requestreason>\n</requestsnapshot>\n'
)
"""RFC 7865, section 7."""
MOST_PENDING = 64
"""Messages kept for a picture."""
_OVER = {EndedBy.US: Over.STOPPED, EndedBy.PEER: Over.BYE}


class Reception(Protocol):
    """Where media come in: `media_reception.MediaReception`."""

    def open(self, host: str) -> MediaPort:
        """A pair of ports. Raises SpanrecError where none is left."""
        ...

    def agree(self, port: MediaPort, terms: PortTerms) -> None:
        """What descriptions say of it."""
        ...

    def state(self, port: MediaPort) -> PortState:
        """What came to it."""
        ...

    def note_call(self, port: MediaPort, session: str) -> None:
        """Which call's media come to it, by its `session_id`."""
        ...

    def mute(self, port: MediaPort, *, muted: bool) -> None:
        """Let nothing through that comes to it, or let it through again."""
        ...

    def release(self, port: MediaPort) -> None:
        """It is used no more."""
        ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all sessions share."""

    reception: Reception
    show: Callable[[RsPicture], None]
    """Takes pictures to the engine's thread."""
    clock: Callable[[], int]
    """Wall clock, ns."""
    largest_body: int = 256 << 10
    """Octets."""
    ended: Callable[["ServerSession", Ended], None] = lambda *_: None
    shares: PortShares | None = None
    """Of clients in the ports; None: each may have all."""


class ServerSession:
    """A recording session."""

    def __init__(
        self, number: int, around: Surroundings, host: str, source: Endpoint, warnings: Sequence[Warning_] = ()
    ) -> None:
        """`host`: our address towards the SRC; `source`: its address. `offered` and `established` come next."""
        self.number = number
        self.session: Session | None = None
        self.state = MetadataState()
        self.view = View()
        self.paused = False
        self.over = False
        self.leaving = False
        """It is over, and the SRC does not know that yet: what it still sends is recorded."""
        self.id = f"r{number}"
        self.asked = False
        """A snapshot was asked for."""
        self.probing = False
        self.note = ""
        """What an operator should know."""
        self.began = around.clock()
        self.heard = self.began
        """When the SRC last gave a sign of life by SIP, ns."""
        self.call_id = ""
        self._around = around
        self._host = host
        self._source = source
        self._warnings = tuple(warnings)
        # A session that we begin ourselves is of a client that is not known yet, and no attack.
        shares = around.shares if source.port else None
        shared = None if shares is None else SharedPorts(around.reception, shares, source.host)
        self._answerer = Answerer(
            host,
            shared or around.reception,
            session_id=randbits(62),
            octets=token_bytes,
            allow=(lambda pairs: None) if shared is None else shared.allow,
        )
        self._pending: list[Received] = []
        self._busy = asyncio.Lock()

    @property
    def lines(self) -> tuple[Line, ...]:
        """Media descriptions in force."""
        return self._answerer.lines

    def offered(self, message: SipMessage) -> Body:
        """The answer to an SRC's first offer; its metadata are read too.

        Raises OfferError or SpanrecError where there can be none."""
        offer = message.sdp()
        if offer is None:
            raise OfferError("The INVITE has no session description that can be read.")
        body = self._described(self._answerer.answer(offer, paused=self.paused))
        self._agree()
        self._learn(message)
        for line in self.lines if self.view.sessions else ():
            # Before the SRC knows that it is recorded.
            self._around.reception.note_call(line.port, self._session_of(line))
        return body

    def established(self, session: Session, message: SipMessage) -> None:
        """The dialog stands; `message`: the SRC's, with its offer and metadata."""
        self.session = session
        self.call_id = session.call_id
        session.on_request = self._requested
        session.on_end = self.ended
        self._note(message)
        self.show()

    def abandon(self) -> None:
        """It comes to nothing: give the ports back."""
        self.over = True
        self._answerer.close()

    # What the SRC sends

    async def _requested(self, message: SipMessage) -> Reply:
        """A request within the session."""
        self.heard = self._around.clock()
        refusal = self._why_refused(message)
        if refusal is not None:
            why, headers = refusal
            return Reply(why.status, why.reason, headers=headers)
        if message.method not in ("INVITE", "UPDATE"):
            self._hear(message)
            self.show()
            return Reply(200)
        offer = message.sdp()
        if offer is None and has_description(message):
            return Reply(488, "Not Acceptable Here", headers=[ACCEPT])
        if offer is None:
            self._hear(message)
            self.show()
            return Reply(200) if message.method == "UPDATE" else self._offer_in_answer()
        try:
            answer = self._answerer.answer(offer, paused=self.paused)
        except OfferError as error:
            return Reply(488, "Not Acceptable Here", headers=[_warning(error)])
        except SpanrecError as error:
            reason = "Full For This Client" if isinstance(error, ShareSpent) else "No Media Port Left"
            return Reply(500, reason, headers=[("Retry-After", "5"), _warning(error)])
        self._agree()
        self._hear(message)
        self.show()
        return Reply(200, body=self._described(answer))

    def _why_refused(self, message: SipMessage) -> tuple[Refusal, Sequence[Header]] | None:
        if len(message.body) > self._around.largest_body:
            return Refusal(413, "Request Entity Too Large", "too-large"), ()
        return why_unsupported(message)

    def _offer_in_answer(self) -> Reply:
        """A re-INVITE without an offer: ours is what stands, and the ACK has the answer (RFC 3261, section 14.2)."""
        task = asyncio.ensure_future(self._hear_acknowledgement())
        task.add_done_callback(_nothing)
        return Reply(200, body=self._described(self._answerer.offer(paused=self.paused)))

    async def _hear_acknowledgement(self) -> None:
        assert self.session is not None
        message = await self.session.acknowledged()
        if message is not None and not self.over:
            self._answered(message)
            self.show()

    def _answered(self, message: SipMessage) -> None:
        """The SRC's answer to an offer of ours."""
        answer = message.sdp()
        if answer is not None:
            self._answerer.answered(answer)
            self._agree()
        self._hear(message)

    def _hear(self, message: SipMessage) -> None:
        """Read the metadata of a message, and keep what it says."""
        self._learn(message)
        self._note(message)

    def _learn(self, message: SipMessage) -> None:
        """Read the metadata of a message."""
        for data, charset in metadata_of(message):
            self.state.take(data, charset)
        self.view = self.state.view()
        self._mute()

    def _session_of(self, line: Line) -> str:
        """`session_id` of the call whose stream a line is: by its label, else the first."""
        sessions = self.view.sessions
        labelled = (each for each in sessions for flow in each.flows if line.label and flow.label == line.label)
        return next(labelled, sessions[0]).id

    def _note(self, message: SipMessage) -> None:
        """Keep what a message says."""
        now = self._around.clock()
        source = self.session.peer.address if self.session is not None else self._source
        kept = received(message, now, str(source), [line.port.rtp.port for line in self.lines])
        if kept is not None and len(self._pending) < MOST_PENDING:
            self._pending.append(kept)

    def ended(self, ended: Ended) -> None:
        """The session is over, whoever ended it."""
        if self.over:
            return
        if ended.message is not None:
            self._hear(ended.message)
        self.over = True
        if ended.by in _OVER:
            self._close(_OVER[ended.by])
        elif self.session is None or self.session.parted:
            self._close(Over.LOST)
        else:
            self.leaving = True
            self.session.on_parted = self.part
        self._around.ended(self, ended)

    def part(self, bye: SipMessage | None) -> None:
        """The SRC knows that it is over, by our BYE or by its own, `bye`; or that is waited for no more."""
        if self.leaving:
            self.leaving = False
            if bye is not None:
                self._hear(bye)
            self._close(Over.LOST if bye is None else Over.BYE)

    def _close(self, over: Over) -> None:
        self.show(over)
        self._answerer.close()

    # What we do

    async def ask_for_snapshot(self) -> None:
        """Ask for all metadata, once (RFC 7866, section 9.2): by UPDATE, where the SRC takes that."""
        session = self.session
        if session is None or self.asked or self.over or "UPDATE" not in session.allows:
            return
        self.asked = True
        body = Body("application/rs-metadata+xml", SNAPSHOT, "recording-session")
        try:
            await session.request("UPDATE", body, [ACCEPT])
        except RefusedError as error:
            self.note = f"asked for metadata, the SRC answered {error}"
        except UnreachableError as error:
            self.note = str(error)

    async def probe(self) -> None:
        """See whether the SRC is still there: where it is not, the user agent ends the session."""
        session = self.session
        if session is None or self.over or self.probing:
            return
        self.probing = True
        try:
            await session.request("OPTIONS")
            self.heard = self._around.clock()
        except RefusedError:
            # A sign of life: what means that the dialog is gone has ended it.
            self.heard = self._around.clock()
        except UnreachableError as error:
            self.note = str(error)
        finally:
            self.probing = False

    async def pause(self, paused: bool) -> None:
        """Record nothing for now, or again (RFC 7866, section 7.2). What the SRC sends all the same goes nowhere,
        also where it refuses to be told."""
        async with self._busy:
            session = self.session
            if session is None or self.over or self.paused is paused:
                return
            self.paused = paused
            self._mute()
            self.show()
            body = self._described(self._answerer.offer(paused=paused))
            try:
                self._answered(await session.reinvite(body, [("Require", "siprec")]))
                self.note = ""
            except RefusedError as error:
                self.note = f"the SRC would not be told to {'pause' if paused else 'go on'}: {error}"
            except UnreachableError as error:
                self.note = str(error)
            if not self.over:
                self.show()

    async def stop(self) -> None:
        """End it."""
        if self.session is not None and not self.over:
            await self.session.bye()

    def show(self, over: Over | None = None) -> None:
        """Hand a picture on."""
        session = self.session
        picture = RsPicture(
            rs=self.number,
            at=self._around.clock(),
            began=self.began,
            call_id=self.call_id,
            src=session.peer.address if session is not None else self._source,
            srs=parse_endpoint(self._host, 0),
            lines=self.lines,
            view=self.view,
            paused=self.paused,
            over=over,
            warnings=self._warnings,
            messages=tuple(self._pending),
        )
        self._pending.clear()
        self._around.show(picture)

    def _agree(self) -> None:
        """Tell the ports what descriptions say."""
        for line in self.lines:
            clock = next((known.clock_rate for known in line.formats.values()), 8000)
            terms = PortTerms(
                clock_rate=clock,
                source=line.source,
                rtcp_to=line.rtcp_to,
                mux=line.mux,
                encrypt=line.ours,
                decrypt=line.theirs if line.encrypted else (),
            )
            self._around.reception.agree(line.port, terms)
        self._mute()

    def _mute(self) -> None:
        """Let media in or not: nothing while we pause, nor while the metadata say that there is no call."""
        idle = self.view.said and not self.view.sessions
        for line in self.lines:
            self._around.reception.mute(line.port, muted=self.paused or idle)

    @staticmethod
    def _described(description: SessionDescription) -> Body:
        return Body(SDP, write_sdp(description))


def _warning(error: SpanrecError) -> Header:
    """Why, for people (RFC 3261, section 20.43)."""
    text = "".join(character for character in str(error) if character.isascii() and character not in '"\\')
    return ("Warning", f'399 spanrec "{text[:200]}"')


def _nothing(task: "asyncio.Future[None]") -> None:
    if not task.cancelled():
        task.exception()
