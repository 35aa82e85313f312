"""One dialog of a recording session of ours with one server: the INVITE, updates, what the server asks, the end.

In: the session's media and calls, a server. Out: messages by the user agent; what the server knows of the metadata;
that the dialog is over. A complete snapshot goes out with the INVITE and whenever the server asks, partial ones after a
complete one was accepted (RFC 7866, section 9.1). Nothing here decides where a session goes next.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from socket import SOCK_DGRAM

from decoders.sip import SipMessage
from recorder.sip_ua.api import (
    Agent,
    Ended,
    EndedBy,
    Header,
    NewSession,
    RefusedError,
    Reply,
    Session,
    UnreachableError,
)
from recorder.siprec.mime_write import metadata_body, sdp_body, write_body
from recorder.siprec.snapshot import Elements, Partial, Told, complete, differs, elements_of, partial
from recorder.siprec.src_answer import hosts_in, read_answer
from recorder.siprec.src_decision import Instance, Server
from recorder.siprec.src_media import RecordedCall, SrcMedia

FEATURE = "+sip.src"
HEADERS: tuple[Header, ...] = (
    ("Require", "siprec"),
    ("Accept", "application/sdp, application/rs-metadata+xml, application/rs-metadata"),
)
"""In each request of ours (RFC 7866, section 6.1.1)."""
SPACING = 1.0
"""s between updates; the first goes out at once."""
SNAPSHOT_SPACING = 0.25
UPDATE_PATIENCE = 4.0
"""s to wait for the answer to an UPDATE: there are servers that list it in Allow and never answer."""
LOOKUP_PATIENCE = 2.0
LONGEST_RETRY = 30.0
MOST_NARROWINGS = 3
MOST_LOOKUPS = 2
MOST_REQUEST = 4096
"""Octets of a body in which a request for a snapshot is looked for."""


@dataclass(slots=True, eq=False)
class Link:
    """A dialog with `server`. `clock` gives capture time in ns; `changed` is called when there is something to do."""

    agent: Agent
    server: Server
    instance: Instance
    media: SrcMedia
    clock: Callable[[], int]
    changed: Callable[[], None]
    calls: list[RecordedCall]
    """Of the session, which adds to it and takes away."""
    noted: Callable[[Session], Callable[[], None]] = lambda session: lambda: None
    """Told of the dialog; gives what is to be called when it has ended."""
    session: Session | None = None
    ended: Ended | None = None
    notes: list[str] = field(default_factory=list)
    said: Elements = field(default_factory=dict)
    """What the server knows."""
    snapshot_due: bool = False
    speaks_siprec: bool = True
    """It takes metadata."""
    _forget_dialog: Callable[[], None] = lambda: None
    _may_update: bool = True
    _not_before: float = 0.0
    _snapshot_not_before: float = 0.0
    _retry: float = SPACING
    _failing: bool = False
    _written: tuple[list[Told], Elements] = field(default_factory=lambda: ([], {}))
    """What was told last, and as what: writing it is much of what a session costs."""
    _hearing: set[asyncio.Task[None]] = field(default_factory=set)
    """Wait for an ACK."""

    @property
    def over(self) -> bool:
        """Whether the dialog has ended."""
        return self.ended is not None or (self.session is not None and self.session.over)

    async def establish(self) -> None:
        """Send INVITE. Raises RefusedError, also where no media is taken, and UnreachableError."""
        narrowings = 0
        while True:
            elements = self._elements()
            try:
                session = await self.agent.invite(self._new(elements))
                break
            except RefusedError as refusal:
                narrowings += 1
                if narrowings > MOST_NARROWINGS or not self._adapt(refusal):
                    raise
        self._adopt(session)
        self.said = elements if self.speaks_siprec else {}
        await self._take_answer(session.answer)
        if not self.media.connected:
            await self.end(None)
            raise RefusedError(488, f"no media accepted ({'; '.join(self.notes[-4:])})", session.answer)

    def adopt(self, session: Session, elements: Elements) -> None:
        """Take over a dialog that the server began; `elements` went out in our 200."""
        self._adopt(session)
        self.said = elements

    async def take_answer(self, message: SipMessage) -> None:
        """The answer to our offer came in an ACK."""
        await self._take_answer(message)

    def wait(self) -> float | None:
        """s until the next update may be sent, 0 where it is due; None where there is nothing to send."""
        now = asyncio.get_running_loop().time()
        if self.snapshot_due:
            return max(0.0, max(self._snapshot_not_before, self._not_before if self._failing else 0.0) - now)
        if not self.media.offer.pending and not self._differs():
            self.media.settle()
            return None
        return max(0.0, self._not_before - now)

    async def update(self, *, final: bool = False) -> bytes | None:
        """Tell the server what has changed, and give that; `final`: only what metadata say. Does not raise: a dialog
        that breaks is `over`, a refusal is tried again later with a complete snapshot."""
        assert self.session is not None
        loop = asyncio.get_running_loop()
        elements = self._elements()
        whole = self.snapshot_due and self.speaks_siprec
        said = None if whole else self._partial(elements)
        self.snapshot_due = False
        self._not_before = loop.time() + SPACING
        if whole:
            self._snapshot_not_before = loop.time() + SNAPSHOT_SPACING
        metadata = complete(elements) if whole else said.data if said is not None else None
        offers = whole or (self.media.offer.pending and not final) or (said is not None and said.labels)
        if metadata is None and not offers:
            return None
        try:
            if offers or not await self._send_update(metadata or b""):
                await self._send_offer(metadata)
        except RefusedError as refusal:
            self._refused(refusal, final=final)
            return metadata
        except UnreachableError as error:
            self.ended = self.ended or Ended(EndedBy.TRANSPORT, text=str(error))
            return metadata
        self._failing, self._retry = False, SPACING
        if self.speaks_siprec:
            self.said = elements
        return metadata

    def forget(self) -> None:
        """Calls were taken away of which the server knows that they are over: nothing more is to be said of them."""
        elements = self._elements()
        self.said = {key: element for key, element in self.said.items() if key in elements}

    async def end(self, final: bytes | None) -> None:
        """Say BYE, with metadata where they are given (RFC 8068, section 3.2.4). Does not raise."""
        if self.session is None or self.over:
            return
        body = metadata_body(final) if final is not None and self.speaks_siprec else None
        await self.session.bye(body, HEADERS[:1])

    async def ask_alive(self) -> None:
        """Ask within the dialog: where nobody answers, the agent ends it. Does not raise."""
        if self.session is not None and not self.over:
            with suppress(RefusedError, UnreachableError):
                await self.session.request("OPTIONS")

    def last_words(self, before: Elements) -> bytes | None:
        """What a final update was to say, for the BYE."""
        said = partial(before, self._elements(), self.clock())
        return said.data if said is not None else None

    # Sending

    def _new(self, elements: Elements) -> NewSession:
        instance = self.instance
        parts = [sdp_body(self.media.offer.offer())]
        if self.speaks_siprec:
            parts.append(metadata_body(complete(elements)))
        return NewSession(
            uri=self.server.uri,
            body=write_body(parts),
            from_=instance.overrides.from_,
            to=instance.overrides.to,
            headers=(*HEADERS, *instance.headers),
            contact_params=(FEATURE,),
            credentials=self.server.credentials,
            via=self.server.via,
            session_expires=instance.session_expires,
            timeout=instance.timeout,
            answer_timeout=instance.answer_timeout,
        )

    def _adopt(self, session: Session) -> None:
        self.session = session
        self._forget_dialog = self.noted(session)
        session.on_end = self._on_end
        session.on_request = self._on_request
        if session.over:
            self._on_end(Ended(EndedBy.PEER, text="ended at once"))

    def _adapt(self, refusal: RefusedError) -> bool:
        """Change the offer after a refusal; False where there is nothing to change."""
        if refusal.status in (488, 606):
            said = refusal.response.sdp() if refusal.response is not None else None
            return self.media.narrow(said)
        if refusal.status == 415 and self.speaks_siprec:
            self.speaks_siprec = False
            self.notes.append("takes no metadata (415)")
            return True
        return False

    async def _send_offer(self, metadata: bytes | None) -> None:
        assert self.session is not None
        parts = [sdp_body(self.media.offer.offer())]
        if metadata is not None:
            parts.append(metadata_body(metadata))
        await self._take_answer(await self.session.reinvite(write_body(parts), HEADERS))

    async def _send_update(self, metadata: bytes) -> bool:
        """Send metadata alone; False where the server does not take them so."""
        session = self.session
        assert session is not None
        if "UPDATE" not in session.allows or not self._may_update:
            return False
        try:
            await asyncio.wait_for(session.request("UPDATE", metadata_body(metadata), HEADERS), UPDATE_PATIENCE)
        except TimeoutError:
            self.notes.append("does not answer UPDATE")
        except RefusedError as refusal:
            self.notes.append(f"refuses UPDATE ({refusal.status})")
        else:
            return True
        self._may_update = False
        return False

    def _refused(self, refusal: RefusedError, *, final: bool) -> None:
        self.notes.append(f"update refused ({refusal.status} {refusal.reason})"[:120])
        del self.notes[:-16]
        self.media.offer.failed()
        if final:
            return
        self._failing = True
        self.snapshot_due = True  # what the server knows now is uncertain
        if not self._adapt(refusal):
            self._retry = min(self._retry * 2, LONGEST_RETRY)
        self._not_before = asyncio.get_running_loop().time() + max(self._retry, refusal.retry_after or 0.0)

    async def _take_answer(self, message: SipMessage) -> None:
        notes = self.media.apply(read_answer(self.media.offer.lines, message, await _look_up(message)))
        self.notes += [note for note in notes if note not in self.notes]
        del self.notes[:-16]

    def _elements(self) -> Elements:
        told = [self.media.told(call) for call in self.calls]
        if told != self._written[0]:
            self._written = told, elements_of(told)
        return self._written[1]

    def _differs(self) -> bool:
        return self.speaks_siprec and differs(self.said, self._elements())

    def _partial(self, elements: Elements) -> Partial | None:
        return partial(self.said, elements, self.clock()) if self.speaks_siprec else None

    # What the server asks

    def _on_end(self, ended: Ended) -> None:
        self.ended = self.ended or ended
        self._forget_dialog()
        self.changed()
        self.changed = nothing  # nothing more comes, and no cycle of references is left

    async def _on_request(self, message: SipMessage) -> Reply:
        """A re-INVITE, UPDATE, INFO, NOTIFY or MESSAGE of the server."""
        asks = wants_snapshot(message)
        if asks:
            self.snapshot_due = True
            # The answer goes out first: the snapshot is a request of its own (RFC 7866, section 9.2).
            asyncio.get_running_loop().call_soon(self.changed)
        if message.sdp() is not None:
            return await self._answer_offer(message)
        if message.method == "INVITE":
            return self._offer_anew()
        if asks or not message.body:
            return Reply(200)
        return Reply(415, headers=(("Accept", HEADERS[1][1]),))

    async def _answer_offer(self, message: SipMessage) -> Reply:
        """The server offers: it holds, goes on, moves or refuses streams; it can add none (section 7.2)."""
        offered = message.sdp()
        assert offered is not None
        lines = self.media.offer.lines
        if [media.index for media in offered.media] != list(range(len(offered.media))) or len(offered.media) < len(
            lines
        ):
            return Reply(488)
        readings = read_answer(lines, message, await _look_up(message))
        self.notes += self.media.apply(readings)
        del self.notes[:-16]
        chosen = {line.index: reading.chosen or {} for line, reading in zip(lines, readings, strict=True)}
        return Reply(200, body=sdp_body(self.media.offer.answer(offered.media, chosen)))

    def _offer_anew(self) -> Reply:
        """The server asks for our offer; its answer comes in the ACK (RFC 3261, section 14.2)."""
        session = self.session
        assert session is not None

        async def hear() -> None:
            acknowledgement = await session.acknowledged()
            if acknowledgement is not None and acknowledgement.sdp() is not None:
                await self._take_answer(acknowledgement)

        task = asyncio.get_running_loop().create_task(hear())
        self._hearing.add(task)
        task.add_done_callback(self._hearing.discard)
        parts = [sdp_body(self.media.offer.offer())]
        if self.speaks_siprec:
            elements = self._elements()
            parts.append(metadata_body(complete(elements)))
            self.said = elements
        return Reply(200, body=write_body(parts))


def nothing() -> None:
    """There is nothing to do."""


def wants_snapshot(message: SipMessage) -> bool:
    """Whether a request asks for a complete snapshot, under either media type (RFC 7866, section 9.2; RFC 9806)."""
    for part in message.parts():
        if part.content_type.startswith("application/rs-metadata-request"):
            return True
        if part.content_type.startswith("application/rs-metadata") and b"requestsnapshot" in part.data[:MOST_REQUEST]:
            return True
    return False


async def _look_up(message: SipMessage) -> Mapping[str, str]:
    """Addresses of host names in a description, as far as they are found in time."""
    found: dict[str, str] = {}
    loop = asyncio.get_running_loop()
    for host in sorted(hosts_in(message))[:MOST_LOOKUPS]:
        try:
            known = await asyncio.wait_for(loop.getaddrinfo(host, 0, type=SOCK_DGRAM), LOOKUP_PATIENCE)
        except (OSError, UnicodeError, TimeoutError):
            continue
        if known:
            found[host] = str(known[0][4][0])
    return found
