"""What the signalling of one call has shown so far: its attempts, answer and end (RFC 3261, sections 13 to 15).

In: what `signalling` reads out of messages. Out: the fields of `Call` as far as they are known. A call is observed, not
played: any message may be missing, repeated, or seen at several hops, so times are the earliest sighting and nothing
waits for a message that may never come. `outcome` draws the conclusion.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from decoders.sip import SipMessage
from recorder.dialogs import DialogTags, Exchange, Hops, Path, top_branch
from recorder.identities import learn_dialog
from recorder.model import Call, Side, Sighting
from recorder.offer_answer import Key, MediaSession
from recorder.trace import note

MAX_ATTEMPTS = 16
MAX_FINALS = 32
MAX_HEARD = 256
"""Requests whose repetition is recognised."""
MAX_SESSION_IDS = 8
REPEAT = 500_000_000
"""ns after its end within which an INVITE of a call may be a late copy."""
RETRY = 32_000_000_000
"""ns within which an INVITE may be repeated, or tried again elsewhere (64 T1, RFC 3261, section 17.1.1.2)."""


class Refusal(NamedTuple):
    """A final response other than 2xx."""

    status: int
    reason: str | None
    time: int
    definitive: bool
    """Seen at the caller's own hop: no other branch can follow."""


@dataclass(slots=True)
class Attempt:
    """One initial INVITE transaction, at all hops and branches."""

    number: int
    from_key: str
    branches: dict[int, str | None] = field(default_factory=dict)
    """Hop to the branch parameter of its INVITE; empty where only responses were seen."""
    cancelled: int | None = None
    cancelled_by_caller: bool = False
    """The CANCEL was seen at the caller's own hop, so it is not a proxy's towards a fork that lost."""
    finals: dict[tuple[int, str | None], int] = field(default_factory=dict)
    """Status and To tag to the earliest sighting."""
    refusal: Refusal | None = None

    @property
    def key(self) -> Key:
        """Of its offer/answer exchange."""
        return (Side.CALLER, self.number, "INVITE")


class Heard(NamedTuple):
    """A message, what it says of its dialog, and where it was seen."""

    message: SipMessage
    exchange: Exchange
    seen: Sighting
    hop: int
    requester: Side


class CallProgress:
    """What is known of one call."""

    __slots__ = (
        "_heard",
        "attempts",
        "bye",
        "call",
        "fresh_invite",
        "hops",
        "in_dialog",
        "invited",
        "last_signal",
        "media",
        "path",
        "tags",
    )

    def __init__(self, call: Call) -> None:
        self.call = call
        self.tags = DialogTags()
        self.hops = Hops()
        self.path = Path()
        self.media = MediaSession(call)
        self.attempts: dict[int, Attempt] = {}
        self.bye: int | None = None
        """Time of the BYE that ended the call."""
        self.in_dialog = False
        """Something was seen that only an answered call sends."""
        self.invited = False
        """An initial INVITE was seen."""
        self.fresh_invite = False
        """The last message was an initial INVITE not seen at its hop before."""
        self.last_signal = call.started
        self._heard: dict[tuple[Side, int, str], None] = {}

    @property
    def established(self) -> bool:
        """The call was answered, whether or not the answer was seen."""
        return self.call.answered is not None or self.in_dialog

    @property
    def attempt(self) -> Attempt | None:
        """The attempt that counts: the last one at the caller's hop."""
        latest = None
        for attempt in reversed(self.attempts.values()):
            if self.path.first_hop in attempt.branches:
                return attempt
            latest = latest or attempt
        return latest

    def hear(self, message: SipMessage, exchange: Exchange, seen: Sighting) -> Heard:
        """Place a message: at which hop, from whom, and when."""
        call, tags = self.call, self.tags
        time, packet, capture = seen[:3]
        requester = tags.requester(exchange)
        call.see(capture, packet)
        if time >= call.last_seen:
            call.last_seen, call.last_packet = time, packet
        if time > self.last_signal:
            self.last_signal = time
        self.fresh_invite = False
        if exchange.status != 100:
            tags.learn(exchange, requester)
        if "session-id" in message.headers:
            self._learn_session_id(message)
        hop = self.hops.known(seen)
        if hop is None:
            hop = self._hop(message, exchange, seen)
        return Heard(message, exchange, seen, hop, requester)

    def _hop(self, message: SipMessage, exchange: Exchange, seen: Sighting) -> int:
        """Hop of a pair of endpoints not seen before. A response may go to another port than its request came from."""
        if exchange.initial_invite:
            return self.hops.enter(seen)
        if exchange.status is not None:
            branch = top_branch(message)
            for attempt in self.attempts.values():
                for hop, sent in attempt.branches.items():
                    if sent is not None and sent == branch:
                        return self.hops.enter(seen, hop)
        return self.hops.enter(seen, self.hops.between_hosts(seen))

    def once(self, side: Side, number: int, method: str) -> bool:
        """Whether something of a transaction happens for the first time."""
        key = (side, number, method)
        if key in self._heard:
            return False
        if len(self._heard) >= MAX_HEARD:
            del self._heard[next(iter(self._heard))]
        self._heard[key] = None
        return True

    def note(self, heard: Heard, code: str, text: str) -> None:
        """A step of the decision trace."""
        note(self.call, heard.seen.time, heard.seen.packet, code, text)

    def attempt_of(self, heard: Heard) -> Attempt | None:
        """The attempt of an initial INVITE or CANCEL, or of a response to one; None beyond MAX_ATTEMPTS."""
        exchange = heard.exchange
        attempt = self.attempts.get(exchange.number)
        if attempt is None and len(self.attempts) < MAX_ATTEMPTS:
            if exchange.initial_invite and self.attempts:
                self.note(heard, "tried-again", f"INVITE again, with CSeq {exchange.number}")
                self.reopen()
            attempt = self.attempts[exchange.number] = Attempt(exchange.number, exchange.from_key)
        return attempt

    def reopen(self) -> None:
        """The end was none: the caller tries again, or an answer came after all."""
        call = self.call
        if self.bye is None and call.answered is None:
            call.ended = call.ended_by = None
            call.sip_status = call.sip_reason = None
            call.reason_headers = ()

    def enter_dialog(self, heard: Heard) -> None:
        """A message was seen that only an answered call sends."""
        if self.established:
            return
        self.in_dialog = True
        message, exchange, seen, _, requester = heard
        first = "response to" if message.method is None else "request"
        if self.attempts:
            self.note(heard, "answer-missing", f"the {first} {exchange.method} proves an answer that was not seen")
            return
        learn_dialog(self.call, message, requester)
        sender = requester if message.method is not None else requester.other
        self.call.party(sender).address = seen.source
        self.call.party(sender.other).address = seen.destination
        self.note(heard, "mid-call", f"first seen is the {first} {exchange.method} inside the dialog, not the INVITE")

    def ended_before(self, message: SipMessage, exchange: Exchange, seen: Sighting) -> bool:
        """Whether a message is an initial INVITE that begins another call with the same Call-ID."""
        ended = self.call.ended
        if ended is None or not exchange.initial_invite or seen.time <= ended:
            return False
        attempt = self.attempts.get(exchange.number)
        same = attempt is not None and attempt.from_key == exchange.from_key
        over = self.bye is not None
        if attempt is not None and same and top_branch(message) in attempt.branches.values():
            return seen.time > ended + (REPEAT if over else RETRY)
        if over or self._cancelled():
            return True
        # After a refusal the caller tries again with a higher number, a proxy elsewhere with the same one.
        again = same or exchange.number > max(self.attempts, default=0)
        return not again or seen.time > ended + RETRY

    def _cancelled(self) -> bool:
        attempt = self.attempt
        return attempt is not None and attempt.refusal is not None and attempt.refusal.status == 487

    def _learn_session_id(self, message: SipMessage) -> None:
        value = message.session_id
        known = self.call.session_ids
        if value and value not in known and len(known) < MAX_SESSION_IDS:
            self.call.session_ids = (*known, value[:256])
