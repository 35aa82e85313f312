"""The recording client of `bench.srs_soak`: sessions of calls whose audio is known, and what may go wrong with them.

In: calls to be recorded, each with its `Fault`; when the server was killed and is back. Out: SIP and RTP, and of each
call the `Take`s that carried it: what was sent where and when, how each ended. A take is one recording session; its
number is that of its streams, so that its audio is known (`bench.calls`), while its metadata are those of its call.
Every SIP message, of either side, is lost with a chance. It opens one socket, as an SRC that is started again opens its
port again.
"""

import random
import re
import socket
import time
from dataclasses import dataclass, field
from enum import StrEnum

from bench.rtp_sender import RtpSender
from bench.srs_messages import HOST, Answer, Messages, read

T1, T2 = 0.5, 4.0
GIVE_UP = 32.0
LINGER = 0.1
"""s between a take's last packet and its BYE."""
CUT = 0.6
"""Part of a take's packets after which a fault happens."""
MOST_GAP = 3.0
"""s that a client needs to start again."""
RESTARTED = "server restarted"
"""How a take ended whose session the server did not know any more."""
AGAIN = 0.01
"""s between two sessions that go on at a server that is back."""


class Fault(StrEnum):
    """What happens to a call's recording sessions, beside messages that are lost."""

    NONE = "none"
    NO_ACK = "ACK never sent"
    NO_BYE = "BYE never sent, client there"
    GONE = "client gone without a word"
    RESTART = "client restarted, goes on in a new session"
    MEDIA_AFTER_BYE = "media go on after BYE"


class State(StrEnum):
    """Where a take stands."""

    INVITED = "invited"
    TALKING = "talking"
    ASKING = "asking whether the server knows it"
    LEAVING = "leaving"
    OVER = "over"


@dataclass(slots=True, eq=False)
class Take:
    """One recording session of a call."""

    number: int
    call: "SoakCall"
    state: State = State.INVITED
    answered: bool = False
    outcome: str = ""
    """How it ended, once it is over; a status where it was refused."""
    remote: tuple[str, str] = ("", "")
    cseq: int = 1
    packets: int = 0
    """Of each stream that it is to send."""
    begun: float = 0.0
    """When its media began, s since the epoch."""
    ended: float = 0.0
    """When its media ended or the fault came."""
    sent: int = 0
    """Packets of each stream that were sent until then."""
    closed: float = 0.0
    """When the client was done with it, s since the epoch."""
    quiet: bool = False
    """The client knows nothing of it any more."""
    mute: bool = False
    """It does not even answer."""
    left_at: float | None = None

    @property
    def streams(self) -> tuple[int, int]:
        return 2 * self.number, 2 * self.number + 1


@dataclass(slots=True, eq=False)
class SoakCall:
    """A call that is to be recorded."""

    number: int
    fault: Fault
    packets: int
    since: float = field(default_factory=time.time)
    """When it began, as all its sessions tell it; s since the epoch."""
    takes: list[Take] = field(default_factory=list)


@dataclass(slots=True)
class _Exchange:
    """A request that is not answered yet."""

    take: Take
    octets: bytes
    begun: float
    again: float
    wait: float = T1


class SoakClient:
    """All calls of a run."""

    def __init__(self, server: tuple[str, int], sender: RtpSender, chance: random.Random, loss: float) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.bind((HOST, 0))
        self._socket.connect(server)
        self._socket.setblocking(False)
        self._messages = Messages("{}:{}".format(*self._socket.getsockname()), "{}:{}".format(*server), sender)
        self._sender = sender
        self._chance = chance
        self._loss = loss
        self._takes: dict[int, Take] = {}
        self._running: dict[int, Take] = {}
        """Takes that are not over, by number."""
        self._exchanges: dict[tuple[int, str], _Exchange] = {}
        self._later: list[tuple[float, SoakCall, int]] = []
        """(when, call, packets): to be gone on with in a new session."""
        self.calls: list[SoakCall] = []
        self.lost = 0
        """SIP messages that were lost on purpose."""

    @property
    def busy(self) -> int:
        """Takes in progress or to come."""
        return len(self._running) + len(self._later)

    @property
    def takes(self) -> int:
        """Number of the next take."""
        return len(self._takes)

    def begin(self, fault: Fault, packets: int) -> SoakCall:
        """Have a call recorded."""
        call = SoakCall(len(self._takes), fault, packets)
        self.calls.append(call)
        self._invite(call, packets)
        return call

    def server_is_back(self, killed: float) -> None:
        """The server was killed, s since the epoch, and runs again: ask of each session of before whether it is known,
        in turn."""
        running = [each for each in self._running.values() if each.state is State.TALKING and not each.quiet]
        talking = [each for each in running if each.begun < killed]
        now = time.monotonic()
        for place, take in enumerate(talking):
            take.state = State.ASKING
            take.cseq += 1
            octets = self._messages.request(take.number, "INVITE", take.cseq, take.remote, described=True)
            self._exchanges[take.number, "INVITE"] = _Exchange(take, octets, now, now + place * AGAIN)

    def turn(self) -> None:
        """Send what is due and take what came."""
        now = time.monotonic()
        self._take(now)
        for due, call, packets in [each for each in self._later if each[0] <= now]:
            self._later.remove((due, call, packets))
            self._invite(call, packets)
        for take in list(self._running.values()):
            if take.state is State.TALKING:
                self._look(take, now)
        for key, exchange in list(self._exchanges.items()):
            if now >= exchange.again:
                self._repeat(key, exchange, now)

    def close(self) -> None:
        self._socket.close()

    # Takes

    def _invite(self, call: SoakCall, packets: int) -> None:
        take = Take(len(self._takes), call, packets=packets)
        self._takes[take.number] = self._running[take.number] = take
        call.takes.append(take)
        self._ask(take, "INVITE", self._messages.invite(take.number, call.number, call.since), State.INVITED)

    def _look(self, take: Take, now: float) -> None:
        """A take whose media are on their way: is it time for its fault, or its end?"""
        call, fault = take.call, take.call.fault
        sent = int(self._sender.sent[take.streams[0]])
        first = take is call.takes[0]
        if first and fault in (Fault.RESTART, Fault.GONE, Fault.NO_BYE) and sent >= CUT * call.packets:
            self._stop(take)
            self._over(take, fault.value)
            take.quiet, take.mute = True, fault is Fault.GONE
            if fault is Fault.RESTART:
                self._later.append((now + self._chance.uniform(0.5, MOST_GAP), call, take.packets - sent))
            return
        if take.left_at is None:
            over = all(self._sender.over(stream) for stream in take.streams)
            early = first and fault is Fault.MEDIA_AFTER_BYE and sent >= CUT * call.packets
            if over or early:
                self._note_end(take)
                take.left_at = now + (0 if early else LINGER)
        elif now >= take.left_at:
            self._leave(take)

    def _leave(self, take: Take) -> None:
        take.cseq += 1
        self._ask(take, "BYE", self._messages.request(take.number, "BYE", take.cseq, take.remote), State.LEAVING)

    def _note_end(self, take: Take) -> None:
        take.ended = time.time()
        take.sent = min(int(self._sender.sent[stream]) for stream in take.streams)

    def _stop(self, take: Take) -> None:
        self._note_end(take)
        for stream in take.streams:
            self._sender.stop(stream)

    def _over(self, take: Take, outcome: str) -> None:
        take.state, take.outcome, take.closed = State.OVER, outcome, time.time()
        self._running.pop(take.number, None)
        for method in ("INVITE", "BYE"):
            self._exchanges.pop((take.number, method), None)

    # SIP

    def _ask(self, take: Take, method: str, octets: bytes, state: State) -> None:
        now = time.monotonic()
        take.state = state
        self._exchanges[take.number, method] = _Exchange(take, octets, now, now + T1)
        self._send(octets)

    def _repeat(self, key: tuple[int, str], exchange: _Exchange, now: float) -> None:
        if now - exchange.begun > GIVE_UP:
            del self._exchanges[key]
            self._stop(exchange.take)
            self._over(exchange.take, f"no answer to {key[1]}")
            return
        exchange.again = now + exchange.wait
        exchange.wait = min(2 * exchange.wait, T2)
        self._send(exchange.octets)

    def _send(self, octets: bytes) -> None:
        if self._chance.random() < self._loss:
            self.lost += 1
            return
        try:
            self._socket.send(octets)
        except OSError:
            return  # nobody is there: it is sent again

    def _take(self, now: float) -> None:
        for _ in range(256):
            try:
                octets = self._socket.recv(65535)
            except ConnectionRefusedError:
                continue
            except OSError:
                return
            if self._chance.random() < self._loss:
                self.lost += 1
                continue
            message = read(octets)
            take = self._takes.get(message.number)
            if take is None:
                continue
            if message.first[0] != "SIP/2.0":
                self._asked(take, message)
            elif int(message.first[1]) >= 200:
                self._answered(take, message)

    def _asked(self, take: Take, request: Answer) -> None:
        """The server wants something."""
        method = request.first[0]
        if method == "ACK" or take.mute:
            return
        if take.quiet:
            self._send(self._messages.response("481 Call/Transaction Does Not Exist", request))
            return
        self._send(self._messages.response("200 OK", request))
        if method == "BYE" and take.state is not State.OVER:
            self._stop(take)
            self._over(take, "ended by the server")

    def _answered(self, take: Take, message: Answer) -> None:
        code, method = int(message.first[1]), message.fields["cseq"].split()[1]
        to = message.fields.get("to", "")
        if method == "INVITE" and code >= 300:
            self._send(self._messages.refused(take.number, to))
        if take.quiet or take.state is State.OVER:
            # It was acknowledged before, or nobody is there that could.
            return
        if method == "BYE" and take.state is State.LEAVING:
            self._over(take, "ended" if code == 200 else f"BYE: {code}")
        elif method == "INVITE" and take.state is State.ASKING:
            self._known(take, code)
        elif method == "INVITE" and code >= 300 and take.state is State.INVITED:
            self._over(take, f"{code}")
        elif method == "INVITE" and code < 300:
            self._invited(take, message, to)

    def _known(self, take: Take, code: int) -> None:
        """What a server that was started again says of a session of before."""
        if code == 481:
            left = take.packets - int(self._sender.sent[take.streams[0]])
            self._stop(take)
            self._over(take, RESTARTED)
            if left > 0:
                self._invite(take.call, left)
        else:
            self._stop(take)
            self._over(take, f"re-INVITE after a restart: {code}")

    def _invited(self, take: Take, message: Answer, to: str) -> None:
        found = re.search(r"<([^>]+)>", message.fields.get("contact", ""))
        take.remote = (found[1] if found else f"sip:srs@{self._messages.target}", to)
        if take.call.fault is not Fault.NO_ACK or take is not take.call.takes[0]:
            self._send(self._messages.request(take.number, "ACK", 1, take.remote))
        if take.state is not State.INVITED:
            return
        self._exchanges.pop((take.number, "INVITE"), None)
        host = re.search(r"^c=IN IP4 (\S+)", message.body, re.MULTILINE)
        ports = [int(each) for each in re.findall(r"^m=audio (\d+) ", message.body, re.MULTILINE)]
        if host is None or len(ports) != 2 or 0 in ports:
            self._over(take, "an answer that is none")
            return
        take.state, take.answered, take.begun = State.TALKING, True, time.time()
        for stream, port in zip(take.streams, ports, strict=True):
            self._sender.begin(stream, host[1], port, take.packets)
