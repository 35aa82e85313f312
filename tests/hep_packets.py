"""HEP packets for tests, field by field as the HEP3 specification and the C structures of the older versions say."""

import struct
from ipaddress import ip_address

SIP_MESSAGE = b"OPTIONS sip:b SIP/2.0\r\nCall-ID: 1\r\nContent-Length: 0\r\n\r\n"


def chunk(kind: int, value: bytes, vendor: int = 0) -> bytes:
    return struct.pack("!HHH", vendor, kind, 6 + len(value)) + value


def hep3_of(*chunks: bytes) -> bytes:
    """Chunks behind the mark and the length."""
    body = b"".join(chunks)
    return b"HEP3" + struct.pack("!H", 6 + len(body)) + body


def hep3(
    payload: bytes = SIP_MESSAGE,
    *,
    source: str = "192.0.2.1",
    destination: str = "192.0.2.2",
    ports: tuple[int, int] = (5060, 5080),
    time: int | None = 1_700_000_000_123_456_000,
    kind: int | None = 1,
    key: bytes | None = None,
    packed: bytes | None = None,
    more: bytes = b"",
) -> bytes:
    """A HEP3 packet with the chunks that every sender writes; `packed` goes into a chunk for compressed payload."""
    ends = [ip_address(end) for end in (source, destination)]
    six = ends[0].version == 6
    chunks = [chunk(1, bytes([10 if six else 2])), chunk(2, b"\x11")]
    chunks += [chunk(5 + k if six else 3 + k, end.packed) for k, end in enumerate(ends)]
    chunks += [chunk(7 + k, struct.pack("!H", port)) for k, port in enumerate(ports)]
    if time is not None:
        seconds, rest = divmod(time, 10**9)
        chunks += [chunk(9, struct.pack("!I", seconds)), chunk(10, struct.pack("!I", rest // 1000))]
    if kind is not None:
        chunks.append(chunk(11, bytes([kind])))
    chunks.append(chunk(12, struct.pack("!I", 2001)))
    if key is not None:
        chunks.append(chunk(14, key))
    chunks.append(more)
    chunks.append(chunk(15, payload) if packed is None else chunk(16, packed))
    return hep3_of(*chunks)


def hep2(
    payload: bytes = SIP_MESSAGE,
    *,
    version: int = 2,
    source: str = "192.0.2.1",
    destination: str = "192.0.2.2",
    ports: tuple[int, int] = (5060, 5080),
    time: int = 1_700_000_000_123_456_000,
    order: str = "<",
) -> bytes:
    """HEP2, or HEP1, which is the same without a time."""
    ends = [ip_address(end) for end in (source, destination)]
    family = 2 if ends[0].version == 4 else 10
    size = 8 + 2 * len(ends[0].packed)
    head = struct.pack("!BBBBHH", version, size, family, 17, *ports) + ends[0].packed + ends[1].packed
    if version == 2:
        seconds, rest = divmod(time, 10**9)
        head += struct.pack(f"{order}IIHxx", seconds, rest // 1000, 99)
    return head + payload
