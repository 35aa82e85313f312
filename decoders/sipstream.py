"""SIP messages out of a byte stream (RFC 3261, section 18.3; RFC 7118).

In: the octets of one direction of a TCP connection in order, with the size of each gap. Out: whole messages, and early
on whether the connection carries SIP at all. A WebSocket upgrade is followed. After a gap, and when joined mid-stream,
framing starts again at the next line that is a start line. Holds at most MAX_BUFFER octets between calls. Never raises.
"""

import re
from enum import IntEnum

from decoders.sip_startline import MAX_LINE, find_line, find_message, may_become_start, parse_start_line
from decoders.websocket import WebSocketReader, begins_with_sip_frame

MAX_BUFFER = 256 * 1024
MAX_HEAD = 64 * 1024
MAX_UPGRADE = 16 * 1024
MAX_UNKNOWN_TEXT = 64 * 1024
"""Octets of text without a start line after which a connection is no SIP: it may have been joined inside a body."""
MAX_UNKNOWN_BINARY = 4 * 1024
MAX_FOREIGN_MESSAGES = 8
"""WebSocket messages that are no SIP before an unnamed subprotocol is given up."""
MAX_NOTES = 32

_BLANKS = b"\r\n \t\0"
_HEAD_END = re.compile(rb"\n\r?\n")
_LENGTH = re.compile(rb"\n(?:Content-Length|l)[ \t]*:[ \t]*(?:\r?\n[ \t]+)?([^\r\n]*)", re.IGNORECASE)
_UPGRADE = re.compile(rb"\nUpgrade[ \t]*:[^\r\n]*websocket", re.IGNORECASE)
_SUBPROTOCOL = re.compile(rb"\nSec-WebSocket-Protocol[ \t]*:([^\r\n]*)", re.IGNORECASE)
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_TLS = re.compile(rb"[\x14-\x17]\x03[\x00-\x04]")
_HTTP = (b"GET ", b"HTTP/1.")


class _Mode(IntEnum):
    UNKNOWN = 0
    SIP = 1
    UPGRADE = 2
    WEBSOCKET = 3
    FOREIGN = 4


class SipStream:
    """One direction of a connection.

    `interested` is True once SIP was seen, False once there is none to expect (feeding on is then pointless), None
    before. `transport` is "tcp" or "ws". `skipped` counts octets that belong to no message.
    """

    __slots__ = ("_buffer", "_foreign", "_mode", "_needed", "_seen", "_synchronised", "_websocket", "notes", "skipped")

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.skipped = 0
        self._buffer = bytearray()
        self._mode = _Mode.UNKNOWN
        self._synchronised = True
        self._needed = 0
        """Octets of the message at the front of the buffer, 0 while not known."""
        self._seen = 0
        self._foreign = 0
        self._websocket: WebSocketReader | None = None

    @property
    def interested(self) -> bool | None:
        """Whether the direction carries SIP; None while that is open."""
        if self._mode is _Mode.WEBSOCKET:
            return True if self._foreign == 0 else None
        return {_Mode.SIP: True, _Mode.FOREIGN: False}.get(self._mode)

    @property
    def transport(self) -> str:
        """What carries the messages: tcp or ws."""
        return "ws" if self._mode is _Mode.WEBSOCKET else "tcp"

    def feed(self, data: bytes, gap: int = 0) -> list[bytes]:
        """Messages that `data` completes; `gap` octets are missing in front of it.

        A message that the gap cuts is given as far as it is there if its header is whole.
        """
        messages = self._lose() if gap > 0 else []
        if self._mode is _Mode.FOREIGN or not data:
            return messages
        if self._mode is _Mode.WEBSOCKET:
            return messages + self._from_websocket(data)
        self._buffer += data
        self._seen += len(data)
        if self._mode is _Mode.UNKNOWN:
            self._recognise(data)
        if self._mode is _Mode.UPGRADE:
            self._upgrade()
        return messages + self._advance()

    def _advance(self) -> list[bytes]:
        """What the buffer gives in the mode that was found."""
        if self._mode is _Mode.SIP:
            return self._frame()
        if self._mode is _Mode.WEBSOCKET and self._buffer:
            rest = bytes(self._buffer)
            self._buffer.clear()
            return self._from_websocket(rest)
        return []

    def finish(self) -> list[bytes]:
        """The stream ended: the message that was cut, if its header is whole."""
        return self._lose()

    def _note(self, text: str) -> None:
        if len(self.notes) < MAX_NOTES and text not in self.notes:
            self.notes.append(text)

    def _lose(self) -> list[bytes]:
        cut = []
        if self._websocket is not None:
            self._websocket.lose()
        if self._mode is _Mode.SIP and self._needed:
            cut.append(bytes(self._buffer))
            self._note("message cut by a gap")
        else:
            self.skipped += len(self._buffer)
        if self._mode is _Mode.UPGRADE:
            self._mode = _Mode.UNKNOWN
        self._buffer.clear()
        self._needed = 0
        self._synchronised = False
        return cut

    def _recognise(self, data: bytes) -> None:
        """Leave UNKNOWN as soon as the octets allow."""
        buffer = self._buffer
        if begins_with_sip_frame(data):
            self._start_websocket(data)
            return
        self._drop_blanks()
        if any(bytes(buffer[: len(mark)]) == mark for mark in _HTTP):
            self._mode = _Mode.UPGRADE
        elif self._at_start() or find_line(buffer) >= 0:
            self._mode = _Mode.SIP
        elif _TLS.match(buffer) or self._seen > self._patience():
            self._give_up()
        elif len(buffer) > MAX_LINE:
            self._keep_last_line()

    def _patience(self) -> int:
        return MAX_UNKNOWN_BINARY if _CONTROL.search(self._buffer, 0, 1024) else MAX_UNKNOWN_TEXT

    def _give_up(self) -> None:
        self._mode = _Mode.FOREIGN
        self._websocket = None
        self._buffer.clear()

    def _drop_blanks(self) -> None:
        """Line ends between messages are keep-alives (RFC 3261, section 7.5; RFC 5626, section 3.5.1)."""
        blanks = len(self._buffer) - len(self._buffer.lstrip(_BLANKS))
        if blanks:
            del self._buffer[:blanks]

    def _at_start(self) -> bool:
        line = self._buffer[:MAX_LINE].partition(b"\n")
        return bool(line[1]) and parse_start_line(line[0].partition(b"\r")[0].decode("latin-1")) is not None

    def _frame(self) -> list[bytes]:
        """Take every whole message off the buffer."""
        messages: list[bytes] = []
        while len(self._buffer) >= self._needed:
            if self._needed:
                messages.append(bytes(self._buffer[: self._needed]))
                del self._buffer[: self._needed]
                self._needed = 0
            self._drop_blanks()
            if not self._buffer or not self._find_start():
                break
            if not self._measure() and self._synchronised:
                break
        return messages

    def _find_start(self) -> bool:
        """Bring a start line to the front of the buffer; False where more octets are needed."""
        buffer = self._buffer
        if self._synchronised:
            if self._at_start():
                return True
            if b"\n" not in buffer[:MAX_LINE] and may_become_start(buffer):
                return False
            self._note("octets between messages")
            self._synchronised = False
        found = find_line(buffer)
        # What the strict search takes for a start line and the parser does not would be found again and again.
        while found >= 0:
            self.skipped += found
            del buffer[:found]
            if self._at_start():
                self._synchronised = True
                return True
            found = find_line(buffer, 1)
        self._keep_last_line()
        return False

    def _keep_last_line(self) -> None:
        """Drop what cannot be part of a start line that is still to be completed."""
        drop = max(self._buffer.rfind(b"\n") + 1, len(self._buffer) - MAX_LINE)
        self.skipped += drop
        del self._buffer[:drop]

    def _measure(self) -> bool:
        """Set `_needed` for the message at the front; False where its header is not whole or it is too long."""
        buffer = self._buffer
        end = _HEAD_END.search(buffer, 0, MAX_HEAD)
        if end is None:
            if len(buffer) >= MAX_HEAD:
                self._abandon("header too long")
            return False
        self._needed = end.end() + self._body_length(end.end())
        if self._needed > MAX_BUFFER:
            self._abandon("message too long")
            return False
        return True

    def _abandon(self, why: str) -> None:
        """Give up the message at the front: its start line goes, its remains are searched for the next one."""
        self._note(why)
        self._needed = 0
        self._synchronised = False
        line = self._buffer.find(b"\n") + 1
        self.skipped += line
        del self._buffer[:line]

    def _body_length(self, body: int) -> int:
        """Octets of the body that begins at `body`. Without a usable Content-Length a session description reaches to
        the next start line or as far as it is there, any other body is empty."""
        lengths = {found.strip() for found in _LENGTH.findall(self._buffer, 0, body)}
        length = lengths.pop() if len(lengths) == 1 else b""
        if length.isdigit() and len(length) <= 10:
            return int(length)
        self._note("contradicting Content-Length" if lengths else "no usable Content-Length")
        if self._buffer[body : body + 2] != b"v=":
            return 0
        following = find_line(self._buffer, body)
        return (following if following >= 0 else len(self._buffer)) - body

    def _upgrade(self) -> None:
        """Read the HTTP head: on to WebSocket if it switches there and names no subprotocol but SIP."""
        end = _HEAD_END.search(self._buffer)
        if end is None:
            if len(self._buffer) > MAX_UPGRADE:
                self._give_up()
            return
        head = bytes(self._buffer[: end.end()])
        subprotocol = _SUBPROTOCOL.search(head)
        named = [name.strip().lower() for name in subprotocol[1].split(b",")] if subprotocol else []
        switching = not head.startswith(b"HTTP/1.") or head[8:13].strip().startswith(b"101")
        if not switching or not _UPGRADE.search(head) or (named and b"sip" not in named):
            self._give_up()
            return
        del self._buffer[: end.end()]
        self._mode = _Mode.WEBSOCKET
        self._websocket = WebSocketReader()
        self._foreign = 0 if named else 1

    def _start_websocket(self, data: bytes) -> None:
        """Joined mid-stream: `data` begins with a frame of SIP."""
        self.skipped += len(self._buffer) - len(data)
        self._buffer[:] = data
        self._mode = _Mode.WEBSOCKET
        self._websocket = WebSocketReader()

    def _from_websocket(self, data: bytes) -> list[bytes]:
        reader = self._websocket
        if reader is None:
            return []
        messages = []
        for payload in reader.feed(data):
            if find_message(payload) is not None:
                messages.append(payload)
                self._foreign = 0
            elif payload.strip(_BLANKS):
                self.skipped += len(payload)
                self._foreign += self._foreign > 0
        for note in reader.notes:
            self._note(note)
        if self._foreign > MAX_FOREIGN_MESSAGES:
            self._give_up()
        return messages
