"""A recording client of the bench's own: sets recording sessions up and ends them, over UDP, for `bench.srs_load`.

In: where the recording server listens, how many sessions, and an `RtpSender`. Out: INVITEs at an even rate, each with a
session description of two streams and complete metadata (RFC 7866, RFC 7865), media as soon as the answer is there,
BYE when all of it is out.
"""

import re
import socket
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from bench.rtp_sender import RtpSender
from bench.srs_messages import HOST, Answer, Messages, read

T1 = 0.5
GIVE_UP = 32.0
LINGER = 0.1
"""s between a session's last packet and its BYE."""

IDLE, INVITED, TALKING, LEAVING, DONE, FAILED = range(6)


@dataclass(slots=True)
class Exchange:
    """A request that is not answered yet."""

    octets: bytes
    begun: float
    again: float
    wait: float = T1


@dataclass(slots=True)
class Told:
    """What became of the sessions."""

    set_up: int = 0
    done: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    retransmitted: int = 0
    set_up_ms: list[float] = field(default_factory=list)


class RecordingClient:
    """All sessions of a run."""

    def __init__(self, server: tuple[str, int], sessions: int, sender: RtpSender, rate: float) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.bind((HOST, 0))
        self._socket.connect(server)
        self._socket.setblocking(False)
        self.messages = Messages("{}:{}".format(*self._socket.getsockname()), "{}:{}".format(*server), sender)
        self._sender = sender
        self._gap = 1.0 / rate
        self.state = np.zeros(sessions, np.int8)
        self._exchanges: dict[int, Exchange] = {}
        self._remote: dict[int, tuple[str, str]] = {}
        """Session -> (request URI, To) of its dialog."""
        self._ended_at = np.zeros(sessions)
        self._next = 0
        self._begin = time.monotonic()
        self.told = Told()

    @property
    def over(self) -> bool:
        """Whether every session is done or has failed."""
        return bool((self.state >= DONE).all())

    def turn(self) -> None:
        """Send what is due and take what came."""
        now = time.monotonic()
        while self._next < len(self.state) and self._begin + self._next * self._gap <= now:
            self._ask(self._next, self.messages.invite(self._next), INVITED, now)
            self._next += 1
        self._take(now)
        talking = np.flatnonzero(self.state == TALKING)
        if len(talking):
            done = self._sender.sent.reshape(-1, 2)[talking].min(axis=1) >= self._sender.packets
            for number in talking[done].tolist():
                if not self._ended_at[number]:
                    self._ended_at[number] = now
                elif now >= self._ended_at[number] + LINGER:
                    self._ask(number, self.messages.request(number, "BYE", 2, self._remote[number]), LEAVING, now)
        for number, exchange in list(self._exchanges.items()):
            if now >= exchange.again:
                self._repeat(number, exchange, now)

    def close(self) -> None:
        self._socket.close()

    def _ask(self, number: int, octets: bytes, state: int, now: float) -> None:
        self.state[number] = state
        self._exchanges[number] = Exchange(octets, now, now + T1)
        self._send(octets)

    def _repeat(self, number: int, exchange: Exchange, now: float) -> None:
        if now - exchange.begun > GIVE_UP:
            self._fail(number, "no answer")
            return
        exchange.wait = min(2 * exchange.wait, 4.0)
        exchange.again = now + exchange.wait
        self.told.retransmitted += 1
        self._send(exchange.octets)

    def _fail(self, number: int, why: str) -> None:
        self.state[number] = FAILED
        self.told.failed[why] += 1
        self._exchanges.pop(number, None)

    def _send(self, octets: bytes) -> None:
        try:
            self._socket.send(octets)
        except OSError:
            self.told.failed["not sent"] += 0  # it is sent again

    def _take(self, now: float) -> None:
        for _ in range(256):
            try:
                octets = self._socket.recv(65535)
            except OSError:
                return
            message = read(octets)
            if message.first[0] == "SIP/2.0":
                self._answered(message, now)
            else:
                self._answer(message)

    def _answered(self, message: Answer, now: float) -> None:
        number, code, method = message.number, int(message.first[1]), message.fields["cseq"].split()[1]
        exchange = self._exchanges.get(number)
        if code < 200:
            if exchange is not None:
                exchange.again = now + GIVE_UP
            return
        if method == "INVITE":
            self._invited(number, code, message, exchange, now)
        elif method == "BYE" and exchange is not None and self.state[number] == LEAVING:
            del self._exchanges[number]
            if code == 200:
                self.state[number] = DONE
                self.told.done += 1
            else:
                self._fail(number, f"BYE: {code}")

    def _invited(self, number: int, code: int, message: Answer, exchange: Exchange | None, now: float) -> None:
        fields, body = message.fields, message.body
        to = fields.get("to", fields.get("t", ""))
        if code >= 300:
            self._send(self.messages.refused(number, to))
            if self.state[number] == INVITED:
                self._fail(number, f"{code}")
            return
        found = re.search(r"<([^>]+)>", fields.get("contact", fields.get("m", "")))
        self._remote[number] = (found[1] if found else f"sip:srs@{self.messages.target}", to)
        self._send(self.messages.request(number, "ACK", 1, self._remote[number]))
        if exchange is None or self.state[number] != INVITED:
            return
        del self._exchanges[number]
        host = re.search(r"^c=IN IP4 (\S+)", body, re.MULTILINE)
        ports = [int(each) for each in re.findall(r"^m=audio (\d+) ", body, re.MULTILINE)]
        if host is None or len(ports) != 2 or 0 in ports:
            self._fail(number, "answer")
            return
        self.told.set_up += 1
        self.told.set_up_ms.append((now - exchange.begun) * 1000)
        self.state[number] = TALKING
        for side, port in enumerate(ports):
            self._sender.begin(2 * number + side, host[1], port)

    def _answer(self, request: Answer) -> None:
        """200 for whatever the server asks (OPTIONS, re-INVITE is none of a bench's)."""
        method = request.first[0]
        if method != "ACK":
            status = "200 OK" if method in ("OPTIONS", "BYE", "INFO") else "488 Not Acceptable Here"
            self._send(self.messages.response(status, request))
