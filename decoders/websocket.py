"""WebSocket frames of one direction back to messages (RFC 6455, section 5), as SIP uses them (RFC 7118).

In: the octets of a TCP direction after the upgrade, in order, and word of what was lost. Out: the payloads of text and
binary messages. Control frames are passed over, compressed messages (permessage-deflate) refused and noted. Bounded
by MAX_MESSAGE. After a loss, or when joined mid-stream, frames are found again at the next segment that begins with a
frame of SIP. Never raises.
"""

from decoders.sip_startline import find_line

MAX_MESSAGE = 256 * 1024
MAX_NOTES = 32

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


class WebSocketReader:
    """Deframes one direction. `synchronised` says whether the next octet is known to begin or continue a frame."""

    __slots__ = ("_buffer", "_dropping", "_message", "_skip", "notes", "synchronised")

    def __init__(self, synchronised: bool = True) -> None:
        self.synchronised = synchronised
        self.notes: list[str] = []
        self._buffer = bytearray()
        self._message: bytearray | None = None
        """Fragments so far, None outside of a fragmented message."""
        self._dropping = False
        """The rest of a refused message is still to come."""
        self._skip = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Whole messages that `data` completes."""
        if not self.synchronised:
            if not begins_with_sip_frame(data):
                return []
            self.synchronised = True
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        self._buffer += data
        messages: list[bytes] = []
        while self.synchronised and not self._skip:
            taken = self._frame(messages)
            if not taken:
                break
        return messages

    def lose(self) -> None:
        """Octets are missing from here on: forget the frame and message that they cut."""
        self._buffer.clear()
        self._message = None
        self._dropping = False
        self._skip = 0
        self.synchronised = False

    def _note(self, text: str) -> None:
        if len(self.notes) < MAX_NOTES and text not in self.notes:
            self.notes.append(text)

    def _frame(self, messages: list[bytes]) -> bool:
        """Take one frame off the buffer; False where it is not whole yet."""
        buffer = self._buffer
        header = _header(buffer)
        if header is None:
            return False
        start, length, mask = header
        opcode, final = buffer[0] & 15, bool(buffer[0] & 0x80)
        control = opcode >= CLOSE
        if opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG) or (control and (length > 125 or not final)):
            self._note("unsound WebSocket frame")
            self.lose()
            return False
        compressed = bool(buffer[0] & 0x70)
        if compressed or length > MAX_MESSAGE:
            self._note("compressed WebSocket message" if compressed else "WebSocket message too long")
            self._refuse(start + length, final)
            return True
        if len(buffer) < start + length:
            return False
        payload = _unmask(bytes(buffer[start : start + length]), mask)
        del buffer[: start + length]
        if not control:
            self._data(opcode, final, payload, messages)
        return True

    def _refuse(self, size: int, final: bool) -> None:
        """Drop a frame of `size` octets, and the fragments after it."""
        present = min(size, len(self._buffer))
        del self._buffer[:present]
        self._skip = size - present
        self._message = None
        self._dropping = not final

    def _data(self, opcode: int, final: bool, payload: bytes, messages: list[bytes]) -> None:
        if opcode != CONTINUATION:
            self._dropping = False
            self._message = bytearray(payload)
        elif self._dropping:
            self._dropping = not final
            return
        elif self._message is None:
            self._note("WebSocket continuation without a beginning")
            return
        else:
            self._message += payload
        if len(self._message) > MAX_MESSAGE:
            self._note("WebSocket message too long")
            self._message = None
            self._dropping = not final
        elif final:
            messages.append(bytes(self._message))
            self._message = None


def _header(buffer: bytes | bytearray) -> tuple[int, int, bytes] | None:
    """Where the payload begins, its length and its mask (empty where unmasked); None where the header is cut."""
    if len(buffer) < 2:
        return None
    length, start = buffer[1] & 0x7F, 2
    if length >= 126:
        start = 4 if length == 126 else 10
        length = int.from_bytes(buffer[2:start], "big")
    masked = bool(buffer[1] & 0x80)
    if len(buffer) < start + 4 * masked:
        return None
    return start + 4 * masked, length, bytes(buffer[start : start + 4]) if masked else b""


def _unmask(payload: bytes, mask: bytes) -> bytes:
    if not mask or not payload:
        return payload
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def begins_with_sip_frame(data: bytes | bytearray) -> bool:
    """Whether `data` begins with a data frame whose payload begins with a SIP start line."""
    header = _header(data)
    if header is None or data[0] & 0x7F not in (TEXT, BINARY):
        return False
    start, length, mask = header
    if not 0 < length <= MAX_MESSAGE:
        return False
    return find_line(_unmask(bytes(data[start : start + min(length, 2048)]), mask)) == 0
