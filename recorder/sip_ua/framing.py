"""SIP messages on a stream of our own: strict, for a peer that we talk to (RFC 3261, sections 7.5 and 18.3).

In: octets as a connection gives them. Out: whole messages, and how many keep-alive pings there were (RFC 5626, section
3.5.1). What cannot be framed raises FramingError, and the connection is of no more use. Bounded by MAX_HEAD and
the largest body that is taken.
"""

import re

MAX_HEAD = 1 << 16
MAX_BODY = 1 << 20
"""Octets of a body where nothing else is said; metadata of a conference fits many times."""

_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"^(?:content-length|l)[ \t]*:[ \t]*(\d{1,9})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)


class FramingError(Exception):
    """Octets that are no sound sequence of messages: a phrase."""


class Framer:
    """Takes one direction of a connection apart."""

    __slots__ = ("_blanks", "_buffer", "_largest", "_needed", "pings")

    def __init__(self, largest_body: int = MAX_BODY) -> None:
        """`largest_body`: octets."""
        self._largest = largest_body
        self._buffer = bytearray()
        self._needed = 0
        """Octets of the message at the front, 0 where its head is not whole."""
        self._blanks = 0
        self.pings = 0
        """Double line ends that were seen between messages and not yet answered."""

    @property
    def waiting(self) -> bool:
        """Part of a message is here."""
        return bool(self._buffer)

    def feed(self, data: bytes | memoryview) -> list[bytes]:
        """The messages that `data` completes. Raises FramingError."""
        self._buffer += data
        messages = []
        while self._skip_blanks() and self._measure():
            if len(self._buffer) < self._needed:
                break
            messages.append(bytes(self._buffer[: self._needed]))
            del self._buffer[: self._needed]
            self._needed = 0
        return messages

    def _skip_blanks(self) -> bool:
        """Drop line ends before a message; whether anything is left."""
        if self._needed:
            return True
        rest = self._buffer.lstrip(b"\r\n")
        ends = self._buffer[: len(self._buffer) - len(rest)].count(b"\n")
        if ends:
            self._blanks += ends
            self.pings += self._blanks // 2
            self._blanks %= 2
            cut = len(self._buffer) - len(rest)
            # A line end that has come by half stays until the other half is here.
            if not rest and self._buffer.endswith(b"\r"):
                cut -= 1
            del self._buffer[:cut]
        if rest:
            self._blanks = 0
        return bool(rest)

    def _measure(self) -> bool:
        """Know the size of the message at the front."""
        if self._needed:
            return True
        end = self._buffer.find(_END, 0, MAX_HEAD)
        if end < 0:
            if len(self._buffer) >= MAX_HEAD:
                raise FramingError("header longer than 64 KiB")
            return False
        lengths = {int(each) for each in _LENGTH.findall(self._buffer, 0, end + 2)}
        if len(lengths) != 1:
            raise FramingError("contradicting Content-Length" if lengths else "no Content-Length")
        body = lengths.pop()
        if body > self._largest:
            raise FramingError(f"body of {body} octets")
        self._needed = end + len(_END) + body
        return True
