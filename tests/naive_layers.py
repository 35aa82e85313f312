"""The layer kernels once more, in plain recursive Python over bytes: slow, obvious, and what the kernels must equal.

`innermost(frame, link_type)` gives one row of a `DatagramBatch` as a `Datagram`.
"""

from typing import NamedTuple

from capture.batch import KIND_FRAGMENT, KIND_NONE, KIND_OTHER, KIND_TCP, KIND_UDP

MAX_DEPTH = 32
TYPES = {0x0800: "ipv4", 0x86DD: "ipv6", 0x8847: "mpls", 0x8848: "mpls", 0x8864: "pppoe"}
TYPES |= {0x6558: "ethernet", 0x880B: "ppp"}
TAGS = {0x8100: 2, 0x88A8: 2, 0x9100: 2, 0x9200: 2, 0x8926: 4, 0x893F: 6, 0x8909: 6}
PROTOCOLS = {6: "tcp", 17: "udp", 47: "gre", 50: "esp", 97: "etherip"}
TUNNELS = {4: "ipv4", 41: "ipv6", 137: "mpls"}
EXTENSIONS = (0, 43, 60, 135, 139, 140)


class Datagram(NamedTuple):
    kind: int = KIND_NONE
    payload: int = 0
    length: int = 0
    missing: int = 0
    source: bytes = bytes(16)
    destination: bytes = bytes(16)
    source_port: int = 0
    destination_port: int = 0
    realm: int = 0
    ip_id: int = 0


class View(NamedTuple):
    """What a layer sees: `data` from `at` on; `promised` is where the headers say that it ends."""

    data: bytes
    at: int
    promised: int
    realm: int
    best: Datagram
    depth: int

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def number(self, offset: int, size: int) -> int:
        return int.from_bytes(self.data[self.at + offset : self.at + offset + size], "big")

    def trimmed(self, promised: int) -> "View":
        return self._replace(data=self.data[:promised], promised=promised)

    def skip(self, size: int) -> "View":
        return self._replace(at=self.at + size)


def innermost(frame: bytes, link_type: int, wire: int | None = None, realm: int = 0) -> Datagram:
    promised = max(len(frame), len(frame) if wire is None else wire)
    view = View(frame, 0, promised, realm, Datagram(realm=realm), 0)
    if not frame:
        return view.best
    if link_type == 1:
        return enter("ethernet", view)
    if link_type == 113:
        return ethertype(view.skip(14))
    if link_type == 276:
        return sll2(view)
    if link_type in (12, 14, 101):
        return enter("ip", view)
    if link_type in (0, 108):
        return loopback(view)
    if link_type == 104 or (link_type == 50 and frame[0] != 0xFF):
        return ethertype(view.skip(2))
    names = {228: "ipv4", 229: "ipv6", 9: "ppp", 50: "ppp", 51: "pppoe"}
    return enter(names[link_type], view) if link_type in names else view.best


def enter(name: str, view: View) -> Datagram:
    if view.depth == MAX_DEPTH:
        return view.best
    return LAYERS[name](view._replace(depth=view.depth + 1))


def mixed(realm: int, identifier: int) -> int:
    x = realm ^ identifier
    for _ in range(2):
        x = ((x ^ x >> 16) * 0x45D9F3B) % 2**32
    return (x ^ x >> 16) or 1


def sll2(view: View) -> Datagram:
    if view.left < 20:
        return view.best
    kind = view.number(0, 2)
    if kind in TYPES:
        return enter(TYPES[kind], view.skip(20))
    if kind not in TAGS or view.left < 20 + TAGS[kind]:
        return view.best
    identifier = view.number(20, 2) & 0xFFF
    if TAGS[kind] == 2 and identifier:
        view = view._replace(realm=mixed(view.realm, 1 << 24 | identifier))
    return ethertype(view.skip(20 + TAGS[kind]))


def loopback(view: View) -> Datagram:
    if view.left >= 4:
        for order in ("big", "little"):
            family = int.from_bytes(view.data[view.at : view.at + 4], order)
            if family == 2:
                return enter("ipv4", view.skip(4))
            if family in (10, 23, 24, 28, 30):
                return enter("ipv6", view.skip(4))
    return view.best


def ethertype(view: View) -> Datagram:
    """`view` stands at an Ethernet type."""
    for _ in range(12):
        if view.left < 2:
            return view.best
        kind = view.number(0, 2)
        if kind in TAGS:
            if view.left < 4:
                return view.best
            identifier = view.number(2, 2) & 0xFFF
            if TAGS[kind] == 2 and identifier:
                view = view._replace(realm=mixed(view.realm, 1 << 24 | identifier))
            view = view.skip(2 + TAGS[kind])
        elif 0 < kind <= 1500:
            if view.data[view.at + 2 : view.at + 8] != b"\xaa\xaa\x03\0\0\0" or view.left < 10:
                return view.best
            view = view.skip(8)
        else:
            return enter(TYPES[kind], view.skip(2)) if kind in TYPES else view.best
    return view.best


def looks_like_ethernet(view: View) -> bool:
    kind = view.number(12, 2)
    snap = 0 < kind <= 1500 and view.left >= 22 and view.number(14, 4) == 0xAAAA0300
    return view.left >= 14 and (kind in TYPES or kind in TAGS or snap)


def looks_like_ip(view: View) -> bool:
    if view.left < 20:
        return False
    room = view.promised - view.at
    if view.data[view.at] >> 4 == 4:
        header = (view.data[view.at] & 15) * 4
        return header >= 20 and (view.number(2, 2) == 0 or header <= view.number(2, 2) <= room)
    return view.data[view.at] >> 4 == 6 and view.left >= 40 and view.number(4, 2) + 40 <= room


def mpls(view: View) -> Datagram:
    while True:
        if view.left < 4:
            return view.best
        last = view.number(2, 1) & 1
        view = view.skip(4)
        if last:
            break
    if looks_like_ip(view):
        return enter("ip", view)
    if view.left >= 4 and view.number(0, 1) == 0 and looks_like_ethernet(view.skip(4)):
        return enter("ethernet", view.skip(4))
    return enter("ethernet", view) if looks_like_ethernet(view) else view.best


def pppoe(view: View) -> Datagram:
    if view.left < 6 or view.number(0, 2) != 0x1100:
        return view.best
    end = view.at + 6 + view.number(4, 2)
    if end <= view.promised:
        view = view.trimmed(end)
    return enter("ppp", view.skip(6))


def ppp(view: View) -> Datagram:
    if view.left >= 2 and view.number(0, 2) == 0xFF03:
        view = view.skip(2)
    if view.left < 2:
        return view.best
    size = 1 if view.number(0, 1) & 1 else 2
    name = {0x21: "ipv4", 0x57: "ipv6", 0x281: "mpls"}.get(view.number(0, size))
    return enter(name, view.skip(size)) if name else view.best


def ip(view: View) -> Datagram:
    if view.left < 1:
        return view.best
    return (ipv4 if view.number(0, 1) >> 4 == 4 else ipv6)(view)


def note(view: View, kind: int, payload: int, **more) -> View:
    length = len(view.data) - payload
    missing = view.promised - len(view.data)
    fields = {"source_port": 0, "destination_port": 0, **more}
    best = view.best._replace(kind=kind, payload=payload, length=length, missing=missing, realm=view.realm, **fields)
    return view._replace(best=best)


def ipv4(view: View) -> Datagram:
    header, total = (view.number(0, 1) & 15) * 4, view.number(2, 2)
    if view.left < 20 or view.number(0, 1) >> 4 != 4 or header < 20 or header > view.left:
        return view.best
    if total and total < header:
        return view.best
    if total:
        view = view.trimmed(view.at + total)
    mapped = bytes(10) + b"\xff\xff"
    source = mapped + view.data[view.at + 12 : view.at + 16]
    destination = mapped + view.data[view.at + 16 : view.at + 20]
    more = {"source": source, "destination": destination, "ip_id": view.number(4, 2)}
    if view.number(6, 2) & 0x3FFF:
        return note(view, KIND_FRAGMENT, view.at, **more).best
    return protocol(note(view, KIND_OTHER, view.at + header, **more).skip(header), view.number(9, 1), version=4)


def ipv6(view: View) -> Datagram:
    if view.left < 40 or view.number(0, 1) >> 4 != 6:
        return view.best
    if view.number(4, 2):
        view = view.trimmed(view.at + 40 + view.number(4, 2))
    source, destination = view.data[view.at + 8 : view.at + 24], view.data[view.at + 24 : view.at + 40]
    noted = note(view, KIND_OTHER, view.at + 40, source=source, destination=destination, ip_id=0)
    return protocol(noted.skip(40), view.number(6, 1), version=6, network=view.at)


def protocol(view: View, number: int, *, version: int, network: int = 0) -> Datagram:
    """Protocol `number` at `view`; extension headers count as layers of their own."""
    if number in PROTOCOLS:
        return enter(PROTOCOLS[number], view)
    if number in TUNNELS:
        return enter(TUNNELS[number], view._replace(realm=0))
    if number == 51 or (version == 6 and (number == 44 or number in EXTENSIONS)):
        return extension(view, number, version, network)
    return view.best


def extension(view: View, number: int, version: int, network: int) -> Datagram:
    if view.depth == MAX_DEPTH or view.left < 8:
        return view.best
    view = view._replace(depth=view.depth + 1)
    size = 8
    if number == 51:
        size = (view.number(1, 1) + 2) * 4
    elif number != 44:
        size = (view.number(1, 1) + 1) * 8
    elif view.number(2, 2) & 0xFFF9:
        return note(view, KIND_FRAGMENT, network).best
    if size > view.left:
        return view.best
    return protocol(view.skip(size), view.number(0, 1), version=version, network=network)


def udp(view: View) -> Datagram:
    if view.left < 8:
        return view.best
    source, destination, length = (view.number(k, 2) for k in (0, 2, 4))
    if length >= 8 and view.at + length <= view.promised:
        view = view.trimmed(view.at + length)
    view = note(view, KIND_UDP, view.at + 8, source_port=source, destination_port=destination).skip(8)
    if destination in (4789, 4790, 8472):
        return vxlan(view)
    if destination == 6081:
        return geneve(view)
    if destination == 37008:
        return tzsp(view)
    if 2152 in (source, destination):
        return gtp(view)
    if destination == 6635:
        return enter("mpls", view._replace(realm=0))
    return enter("esp", view) if 4500 in (source, destination) else view.best


def tcp(view: View) -> Datagram:
    if view.left < 20:
        return view.best
    ports = {"source_port": view.number(0, 2), "destination_port": view.number(2, 2)}
    return note(view, KIND_TCP, view.at, **ports).best


def vxlan(view: View) -> Datagram:
    inner = view.skip(8)._replace(realm=mixed(0, 2 << 24 | view.number(4, 3)))
    if view.left < 8 or view.number(7, 1):
        return view.best
    if view.number(0, 1) == 0x88 or view.number(0, 4) in (0x08000000, 0x0C000003):
        return enter("ethernet", inner) if looks_like_ethernet(inner) else view.best
    sound = view.number(0, 4) in (0x0C000001, 0x0C000002) and looks_like_ip(inner)
    return enter("ip", inner) if sound else view.best


def geneve(view: View) -> Datagram:
    if view.left < 8 or view.number(0, 1) >> 6 or view.number(1, 1) & 0x3F or view.number(7, 1):
        return view.best
    kind = view.number(2, 2)
    inner = view.skip(8 + 4 * (view.number(0, 1) & 0x3F))._replace(realm=mixed(0, 2 << 24 | view.number(4, 3)))
    sound = looks_like_ethernet(inner) if kind == 0x6558 else looks_like_ip(inner)
    return enter(TYPES[kind], inner) if sound and kind in TYPES else view.best


def gtp(view: View) -> Datagram:
    end = view.at + 8 + view.number(2, 2)
    if view.left < 8 or view.number(0, 1) & 0xF8 != 0x30 or view.number(1, 1) != 255 or end > view.promised:
        return view.best
    flags = view.number(0, 1) & 7
    inner = view.trimmed(end)._replace(realm=0).skip(8)
    if flags:
        if inner.left < 4:
            return view.best
        following = inner.number(3, 1) if flags & 4 else 0
        inner = inner.skip(4)
        while following:
            size = inner.number(0, 1) * 4
            if inner.left < 4 or not size or size > inner.left:
                return view.best
            following = inner.number(size - 1, 1)
            inner = inner.skip(size)
    if looks_like_ip(inner):
        return enter("ip", inner)
    return enter("ethernet", inner) if looks_like_ethernet(inner) else view.best


def tzsp(view: View) -> Datagram:
    if view.left < 5 or view.number(0, 1) != 1 or view.number(1, 1) > 1 or view.number(2, 2) != 1:
        return view.best
    inner = view.skip(4)
    while inner.left >= 2 and inner.number(0, 1) != 1:
        inner = inner.skip(1 if inner.number(0, 1) == 0 else 2 + inner.number(1, 1))
    if inner.left < 1 or inner.number(0, 1) != 1 or not looks_like_ethernet(inner.skip(1)):
        return view.best
    return enter("ethernet", inner.skip(1)._replace(realm=0))


def gre(view: View) -> Datagram:
    if view.left < 4 or view.number(1, 1) & 7 > 1:
        return view.best
    flags, kind, version = view.number(0, 2), view.number(2, 2), view.number(1, 1) & 7
    inner = view._replace(realm=0).skip(4 + 4 * bool(flags & 0x2000) + 4 * bool(flags & 0x1000))
    if version == 1:
        inner = inner.skip(4 * bool(flags & 0x80))
    elif flags & 0xC000:
        inner = inner.skip(4)
        if flags & 0x4000:
            while True:
                if inner.left < 4:
                    return view.best
                family, length = inner.number(0, 2), inner.number(3, 1)
                inner = inner.skip(4 + length)
                if not family and not length:
                    break
    if kind not in (0x88BE, 0x22EB):
        return enter(TYPES[kind], inner) if kind in TYPES else view.best
    shape = inner.number(0, 1) >> 4 if inner.left >= 12 else 0
    if kind == 0x88BE:
        return enter("ethernet", inner.skip(8 if flags & 0x1000 and shape == 1 else 0))
    if shape != 2:
        return view.best
    optional = 8 * (inner.number(11, 1) & 1)
    return enter("ip" if inner.number(10, 1) >> 2 & 0x1F == 2 else "ethernet", inner.skip(12 + optional))


def etherip(view: View) -> Datagram:
    if view.left < 2 or view.number(0, 2) != 0x3000:
        return view.best
    return enter("ethernet", view.skip(2)._replace(realm=0))


def esp(view: View) -> Datagram:
    end = len(view.data)
    if end != view.promised or view.left < 16 or not view.number(0, 4):
        return view.best
    at = view.at + 8
    for check in (12, 16, 20, 24, 32):
        trailer = end - check - 2
        if trailer - at < 8:
            break
        padding, number = view.data[trailer], view.data[trailer + 1]
        if trailer - padding - at < 8:
            continue
        inner = view.trimmed(trailer - padding).skip(8)
        if view.data[trailer - padding : trailer] != bytes(range(1, padding + 1)):
            continue
        if number == 17 and inner.number(4, 2) == inner.left:
            return enter("udp", inner)
        if number == 6 and inner.left >= 20:
            header = (inner.number(12, 1) >> 4) * 4
            if inner.number(12, 1) & 0x0E == 0 and 20 <= header <= inner.left:
                return enter("tcp", inner)
        if number in (4, 41) and looks_like_ip(inner):
            version, exact = inner.number(0, 1) >> 4, inner.left
            if number == 4 and version == 4 and inner.number(2, 2) == exact:
                return enter("ipv4", inner._replace(realm=0))
            if number == 41 and version == 6 and inner.number(4, 2) + 40 == exact:
                return enter("ipv6", inner._replace(realm=0))
    return view.best


LAYERS = {"ethernet": lambda view: ethertype(view.skip(12))} | {
    name: globals()[name]
    for name in ("mpls", "pppoe", "ppp", "ip", "ipv4", "ipv6", "udp", "tcp", "gre", "etherip", "esp")
}
