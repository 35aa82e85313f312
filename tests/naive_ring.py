"""The obvious way to read a block of a TPACKET_V3 ring: twin of the kernels in `capture`, and a builder of blocks."""

import struct
from dataclasses import dataclass

OUTGOING, LOOPBACK = 4, 772
VLAN_VALID, VLAN_TPID_VALID = 1 << 4, 1 << 6
ETHERNET, SLL2 = 1, 276
KEEP, SKIP_LOOPBACK, SKIP = 0, 1, 2


@dataclass
class Frame:
    """A frame as the Linux kernel describes it."""

    octets: bytes
    seconds: int = 1_700_000_000
    ns: int = 0
    wire: int | None = None
    status: int = 1
    control: int = 0
    tag: int = 0
    protocol: int = 0x0800
    index: int = 3
    hardware_type: int = 1
    packet_type: int = 0
    address: bytes = b"\2\0\0\0\0\1"
    room: int = 34

    def packed(self, last: bool = False) -> bytes:
        """Its header, its address, room before it, and itself; ends on 8 octets."""
        data = 48 + 20 + self.room
        size = (data + len(self.octets) + 7) & ~7
        head = struct.pack(
            "=6I2H2I2H8x",
            0 if last else size, self.seconds, self.ns, len(self.octets),
            len(self.octets) if self.wire is None else self.wire, self.status, data, data + 14,
            0, self.control, self.tag, 0,
        )  # fmt: skip
        address = struct.pack("=H", 17) + struct.pack(">H", self.protocol)
        address += struct.pack("=iHBB8s", self.index, self.hardware_type, self.packet_type, 6, self.address)
        return (head + address + bytes(self.room) + self.octets).ljust(size, b"\0")


def block(frames, size, status=1):
    """A block with a header, as the kernel hands it over."""
    parts = [frame.packed(last=k == len(frames) - 1) for k, frame in enumerate(frames)]
    body = b"".join(parts)
    head = struct.pack("=2I4IQ4I", 1, 48, status, len(frames), 48, 48 + len(body), 0, 0, 0, 0, 0)
    return (head + body).ljust(size, b"\0")


def walk_block(data, link_type, outgoing):
    """([(time, octets of the frame, wire)], whether something did not fit)."""
    rows = []
    packets, at = struct.unpack_from("=2I", data, 12)
    if packets > len(data) // 64:
        return [], True
    for left in range(packets, 0, -1):
        if at % 8 or at < 48 or at + 68 > len(data):
            return rows, True
        step, seconds, ns, length, wire, status, mac = struct.unpack_from("=6IH", data, at)
        control, tag = struct.unpack_from("=IH", data, at + 32)
        index, hardware_type, packet_type = struct.unpack_from("=iHB", data, at + 52)
        protocol, address = data[at + 50 : at + 52], data[at + 58 : at + 68]
        if mac < 68 or length > len(data) - at - mac:
            return rows, True
        if not status & VLAN_TPID_VALID:
            tag = 0x8100 if status & VLAN_VALID else 0
        frame = data[at + mac : at + mac + length]
        room = mac - 68
        skipped = packet_type == OUTGOING and (
            outgoing == SKIP or (outgoing == SKIP_LOOPBACK and hardware_type == LOOPBACK)
        )
        if not skipped:
            before = b""
            if link_type == ETHERNET and tag and length >= 12 and room >= 4:
                frame = frame[:12] + struct.pack(">HH", tag, control & 0xFFFF) + frame[12:]
                before = bytes(4)
            elif link_type == SLL2:
                before = (struct.pack(">H", tag) if tag else protocol) + b"\0\0" + struct.pack(">i", index)
                before += struct.pack(">H", hardware_type) + address
                if tag:
                    before += struct.pack(">H", control & 0xFFFF) + protocol
                if room < len(before):
                    return rows, True
                frame = before + frame
            whole = min(max(wire, length), 0x7FFFFF00) + len(before)
            rows.append((seconds * 10**9 + ns, frame, whole))
        if left > 1 and step < 48:
            return rows, True
        at += step
    return rows, False
