"""A recording client that goes wrong: mutated messages over UDP, and over TCP torn into pieces.

In: a port on loopback, a random source: the same one gives the same messages, but for what the server's answers make of
them. Out: messages sent, counted by their kind. It answers as a client would, often enough that mutations come within
dialogs too, and ends what it began. Bounded: dialogs, connections, what is read.
"""

import re
import socket
from collections import OrderedDict, deque
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

from tests.fuzz import seeds
from tests.fuzz.mutate import mutate_octets, mutate_text
from tests.srs_lab import line, metadata, multipart, partial, sdp

SOURCE = "127.0.0.2"
"""Not the address of the calls in progress."""
MOST_DIALOGS = 40
MOST_CONNECTIONS = 12
LIMIT = 32_768
METHODS = ("INVITE", "UPDATE", "INFO", "BYE", "OPTIONS", "ACK", "CANCEL", "PRACK", "MESSAGE", "NOTIFY", "REGISTER", "X")
_ANSWER = re.compile(rb"\ASIP/2\.0 (\d{3})[^\r\n]*\r\n", re.IGNORECASE)
_FIELD = r"^%s[ \t]*:[ \t]*(.*?)\r?$"
_LENGTH = re.compile(rb"^(?:content-length|l)[ \t]*:[^\r\n]*\r?\n?", re.IGNORECASE | re.MULTILINE)


def value(message: bytes, name: str) -> bytes:
    """The first value of a header field; empty where there is none."""
    found = re.search((_FIELD % name).encode(), message, re.IGNORECASE | re.MULTILINE)
    return found[1] if found else b""


@dataclass
class Dialog:
    """One that the server accepted."""

    call_id: bytes
    local: bytes
    remote: bytes
    target: bytes
    cseq: int = 1


@dataclass
class Peer:
    """What both transports have in common."""

    random: Random
    transport: str
    sent: dict[str, int] = field(default_factory=dict)
    """Messages, by their kind."""
    dialogs: "OrderedDict[bytes, Dialog]" = field(default_factory=OrderedDict)
    number: int = 0

    def __post_init__(self) -> None:
        offer = sdp(line(6000, "1"), line(6002, "2"), host=SOURCE)
        video = "m=video 6010 RTP/AVP 97\r\na=rtpmap:97 H264/90000\r\na=sendonly\r\n"
        self.descriptions = [offer, sdp(line(6000), video, host=SOURCE), seeds.SDP]
        self.documents = [metadata().encode(), partial("<stream stream_id='x'/>").encode(), seeds.RS_METADATA]
        self.messages = [seeds.ODD_SIP, *seeds.sip_messages()[:40]]

    # What is sent

    def next(self) -> tuple[str, bytes]:
        """One message and its kind."""
        self.number += 1
        chance = self.random.random()
        if chance < 0.12:
            return "SIP of others", self._mutate(self.random.choice(self.messages), self.messages)
        if chance < 0.55 or not self.dialogs:
            kind, body, content_type = self._body()
            return kind, self._message("INVITE", None, body, content_type, headed=kind == "SIP")
        dialog = self.random.choice(list(self.dialogs.values()))
        method = self.random.choice(METHODS)
        kind, body, content_type = self._body()
        if method == "BYE" and kind != "SIP":
            self.dialogs.pop(dialog.call_id, None)
        return f"{kind} within dialogs", self._message(method, dialog, body, content_type, headed=kind == "SIP")

    def _mutate(self, data: bytes, others: list[bytes]) -> bytes:
        how = self.random.choice((mutate_octets, mutate_text, mutate_text))
        return how(data, self.random, others, LIMIT)

    def _body(self) -> tuple[str, bytes, str]:
        """(what is mutated, body, its type)."""
        description, document = self.random.choice(self.descriptions[:2]), self.random.choice(self.documents)
        kind = self.random.choice(("SIP", "SDP", "multipart", "metadata"))
        if kind == "SDP":
            description = self._mutate(description, self.descriptions)
        elif kind == "metadata":
            document = self._mutate(document, self.documents)
        made, content_type = multipart(description, document)
        if kind == "multipart":
            made = self._mutate(made, [seeds.MULTIPART, made])
        if self.random.random() < 0.1:
            return kind, description, "application/sdp"
        return kind, made, content_type

    def _message(self, method: str, dialog: Dialog | None, body: bytes, content_type: str, *, headed: bool) -> bytes:
        """A message around a body; `headed`: its head is mutated."""
        own = f"{self.transport}{self.number}"
        uri, cseq = "sip:srs@127.0.0.1", 1
        from_, to, call_id = f"<sip:src@{SOURCE}>;tag={own}", "<sip:srs@127.0.0.1>", f"{own}@fuzz"
        if dialog is not None:
            dialog.cseq += method != "ACK"
            uri, cseq, call_id = dialog.target.decode("latin-1"), dialog.cseq, dialog.call_id.decode("latin-1")
            from_, to = dialog.local.decode("latin-1"), dialog.remote.decode("latin-1")
        head = "\r\n".join([
            f"{method} {uri} SIP/2.0",
            f"Via: SIP/2.0/{self.transport} {SOURCE};branch=z9hG4bK{own};rport",
            f"From: {from_}",
            f"To: {to}",
            f"Call-ID: {call_id}",
            f"CSeq: {cseq} {method}",
            f"Contact: <sip:src@{SOURCE};transport={self.transport.lower()}>;+sip.src",
            "Max-Forwards: 70",
            "Require: siprec",
            "Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE",
            f"Content-Type: {content_type}",
            "",
        ]).encode("latin-1")  # fmt: skip
        if headed:
            head = self._mutate(head, [seeds.ODD_SIP, head])
        if self.random.random() < 0.95:
            head = _LENGTH.sub(b"", head).rstrip(b"\r\n") + b"\r\nContent-Length: %d\r\n" % len(body)
        return head + b"\r\n" + body

    def count(self, kind: str) -> None:
        name = f"{kind}, {self.transport}"
        self.sent[name] = self.sent.get(name, 0) + 1

    # What is answered

    def take(self, message: bytes) -> list[bytes]:
        """What a client says to it."""
        found = _ANSWER.match(message)
        if found is None:
            # A request of the server: its answer is a mutation now and then.
            echoed = [
                b"%s: %s" % (name, value(message, name.decode())) for name in (b"Via", b"From", b"To", b"Call-ID")
            ]
            answer = b"\r\n".join(
                [b"SIP/2.0 200 OK", *echoed, b"CSeq: " + value(message, "CSeq"), b"Content-Length: 0"]
            )
            answer += b"\r\n\r\n"
            return [self._mutate(answer, [seeds.ODD_SIP])] if self.random.random() < 0.2 else [answer]
        if not value(message, "CSeq").upper().endswith(b"INVITE") or int(found[1]) != 200:
            return []
        call_id = value(message, "Call-ID")
        target = value(message, "Contact").partition(b"<")[2].partition(b">")[0]
        dialog = Dialog(call_id, value(message, "From"), value(message, "To"), target)
        said = []
        if call_id not in self.dialogs:
            self.dialogs[call_id] = dialog
            if len(self.dialogs) > MOST_DIALOGS:
                said.append(self.goodbye(self.dialogs.popitem(last=False)[1]))
        if self.random.random() < 0.8:  # an ACK is lost now and then
            known = self.dialogs.get(call_id, dialog)
            said.append(self._plain("ACK", known, known.cseq))
        return said

    def goodbye(self, dialog: Dialog) -> bytes:
        """The end of a dialog."""
        dialog.cseq += 1
        return self._plain("BYE", dialog, dialog.cseq)

    def _plain(self, method: str, dialog: Dialog, cseq: int) -> bytes:
        self.number += 1
        return b"\r\n".join([
            b"%s %s SIP/2.0" % (method.encode(), dialog.target),
            b"Via: SIP/2.0/%s %s;branch=z9hG4bKp%d;rport" % (self.transport.encode(), SOURCE.encode(), self.number),
            b"From: " + dialog.local,
            b"To: " + dialog.remote,
            b"Call-ID: " + dialog.call_id,
            b"CSeq: %d %s" % (cseq, method.encode()),
            b"Max-Forwards: 70",
            b"Content-Length: 0",
            b"",
            b"",
        ])  # fmt: skip


class DatagramPeer(Peer):
    """Over UDP."""

    def __init__(self, port: int, random: Random) -> None:
        super().__init__(random, "UDP")
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((SOURCE, 0))
        self._socket.connect(("127.0.0.1", port))
        self._socket.settimeout(0.002)

    def step(self) -> None:
        """Send one, and answer what has come."""
        kind, message = self.next()
        if self._say(message):
            self.count(kind)
        self._answer()

    def end_dialogs(self) -> None:
        """Say BYE in all of them."""
        for _ in range(100):
            self._answer()
            while self.dialogs:
                self._say(self.goodbye(self.dialogs.popitem(last=False)[1]))

    def close(self) -> None:
        self._socket.close()

    def _answer(self) -> None:
        for _ in range(20):
            try:
                message = self._socket.recv(65536)
            except OSError:
                return
            for said in self.take(message):
                self._say(said)

    def _say(self, message: bytes) -> bool:
        try:
            self._socket.send(message)
        except OSError:
            return False
        return True


class StreamPeer(Peer):
    """Over TCP: pieces of any size, connections that break off in the middle, others that stay silent."""

    def __init__(self, port: int, random: Random) -> None:
        super().__init__(random, "TCP")
        self._port = port
        self._open: deque[socket.socket] = deque()
        self._received: dict[socket.socket, bytes] = {}

    def step(self) -> None:
        """Send one on some connection, and answer what has come."""
        chance = self.random.random()
        if len(self._open) < 3 or (chance < 0.03 and len(self._open) < MOST_CONNECTIONS):
            self._connect()
        elif chance < 0.05:
            self._hang_up(self._open[0])
        if not self._open:
            return
        connection = self.random.choice(self._open)
        kind, message = self.next()
        if self.random.random() < 0.1:
            message += self.next()[1]
        if self.random.random() < 0.03:
            message = message[: self.random.randrange(len(message) + 1)]
        if self._say(connection, message, torn=True):
            self.count(kind)
        for each in list(self._open):
            self._answer(each)

    def end_dialogs(self) -> None:
        """Say BYE in all of them, on a connection that is sound."""
        self._connect()
        for _ in range(100):
            if not self._open:
                return
            self._answer(self._open[-1])
            while self.dialogs and self._open:
                self._say(self._open[-1], self.goodbye(self.dialogs.popitem(last=False)[1]), torn=False)

    def close(self) -> None:
        for connection in list(self._open):
            self._hang_up(connection)

    def _connect(self) -> None:
        with suppress(OSError):
            opened = socket.create_connection(("127.0.0.1", self._port), 5, source_address=(SOURCE, 0))
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open.append(opened)
            self._received[opened] = b""

    def _hang_up(self, connection: socket.socket) -> None:
        self._open.remove(connection)
        del self._received[connection]
        connection.close()

    def _say(self, connection: socket.socket, message: bytes, *, torn: bool) -> bool:
        connection.settimeout(2.0)
        try:
            while message:
                size = self.random.choice((1, 2, 7, 100, 1460, LIMIT)) if torn else len(message)
                connection.sendall(message[:size])
                message = message[size:]
                torn = torn and self.random.random() < 0.9
        except OSError:
            self._hang_up(connection)
            return False
        return True

    def _answer(self, connection: socket.socket) -> None:
        connection.settimeout(0.0005)
        try:
            received = connection.recv(65536)
        except TimeoutError:
            return
        except OSError:
            received = b""
        if not received:
            self._hang_up(connection)
            return
        waiting = (self._received[connection] + received)[-LIMIT:]
        while b"\r\n\r\n" in waiting:
            head, _, rest = waiting.partition(b"\r\n\r\n")
            length = value(head, "Content-Length")
            size = int(length) if length.isdigit() else 0
            if len(rest) < size:
                break
            waiting = rest[size:]
            for said in self.take(head.lstrip(b"\r\n") + b"\r\n\r\n"):
                if connection in self._received:
                    self._say(connection, said, torn=False)
        if connection in self._received:
            self._received[connection] = waiting
