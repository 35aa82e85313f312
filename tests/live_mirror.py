"""Mirrors of the lab's bridge, as a switch or a proxy's host makes them, and where a recorder sees them.

In: ports of the bridge, and directions. Out: interfaces of the namespace `RECORDER` on which copies come in: plain,
with a VLAN tag, or in a tunnel to an address there (VXLAN by the kernel, ERSPAN II by a `Relay`). Mirrors are tc's: a
clsact queue on the port, u32 that matches all, mirred. Everything is gone after the `with` block.

The kernels that we test on have no matchall, no VLAN devices and no GRE, so `Relay` does what a switch would: it puts
the tag or the tunnel around each copied frame.
"""

import socket
import struct
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fcntl import LOCK_EX, flock
from functools import cache
from pathlib import Path

from bench.veth import entered, wire
from pcaps.make.network import BRIDGE_HOST, run
from tests.wire_replay import go_first

RECORDER = "srlab-recorder"
BOTH = ("ingress", "egress")
LARGEST = 9000
"""MTU of the mirror's wires: nothing that is copied is too long for them, tunnels included."""

PACKET_OUTGOING = 4
ALL_PROTOCOLS = 3


def near(network: int) -> str:
    """The switch's end of a tunnel."""
    return f"10.99.{network}.1"


def far(network: int) -> str:
    """The recorder's end."""
    return f"10.99.{network}.2"


@contextmanager
def alone() -> Iterator[None]:
    """Wait for the lab: its network has names of its own, so that there can be only one."""
    with (Path(tempfile.gettempdir()) / "spanrec-lab.lock").open("w") as lock:
        flock(lock, LOCK_EX)
        yield


@contextmanager
def recorder_host() -> Iterator[None]:
    """The recorder's namespace, without an interface yet."""
    run(f"ip netns add {RECORDER}")
    try:
        run(f"ip netns exec {RECORDER} sysctl -q -w net.ipv6.conf.all.disable_ipv6=1")
        run(f"ip netns exec {RECORDER} sysctl -q -w net.ipv6.conf.default.disable_ipv6=1")
        run(f"ip -n {RECORDER} link set lo up")
        yield
    finally:
        run(f"ip netns del {RECORDER}", check=False)


def cable(name: str) -> str:
    """Lay a wire from the bridge's host to the recorder; gives the end at the bridge, the recorder's is `name`."""
    end = f"to-{name}"
    run(f"ip -n {BRIDGE_HOST} link add {end} mtu {LARGEST} type veth peer name {name} netns {RECORDER}")
    run(f"ip -n {BRIDGE_HOST} link set {end} arp off up")
    run(f"ip -n {RECORDER} link set {name} mtu {LARGEST} arp off up")
    return end


def mirror(copies: Mapping[tuple[str, str], Sequence[str]]) -> None:
    """Copy what crosses ports of the bridge: (port, direction) to the interfaces that get a copy."""
    for port in {port for port, _ in copies}:
        run(f"tc -n {BRIDGE_HOST} qdisc add dev {port} clsact")
    for (port, direction), to in copies.items():
        actions = " ".join(f"action mirred egress mirror dev {each}" for each in to)
        run(f"tc -n {BRIDGE_HOST} filter add dev {port} {direction} protocol all u32 match u32 0 0 {actions}")


def tunnel_ends(name: str, network: int) -> str:
    """A wire with addresses at its ends, `near` and `far` of a network; gives the end at the bridge."""
    end = cable(name)
    for space, device, address in ((BRIDGE_HOST, end, near(network)), (RECORDER, name, far(network))):
        run(f"ip -n {space} link set {device} arp on")
        run(f"ip -n {space} addr add {address}/24 dev {device}")
    return end


def vxlan(name: str, network: int) -> str:
    """A VXLAN tunnel to the recorder; gives the device whose frames go into it."""
    end = tunnel_ends(name, network)
    options = f"type vxlan id 42 local {near(network)} remote {far(network)} dstport 4789 dev {end}"
    run(f"ip -n {BRIDGE_HOST} link add vx-{name} mtu {LARGEST - 100} {options}")
    run(f"ip -n {BRIDGE_HOST} link set vx-{name} up")
    return f"vx-{name}"


def tagged(frame: bytes, identifier: int) -> bytes:
    """With an 802.1Q tag."""
    return frame[:12] + struct.pack("!HH", 0x8100, identifier) + frame[12:]


def in_erspan(frame: bytes, sequence: int, session: int = 5) -> bytes:
    """What GRE carries as ERSPAN type II: flags, sequence number, the header with its session, the frame."""
    gre = struct.pack("!HHI", 0x1000, 0x88BE, sequence & 0xFFFFFFFF)
    return gre + struct.pack("!HHI", 0x1000, session, 0) + frame


class Relay(threading.Thread):
    """Takes the frames that are copied to an interface, and sends each on, put into something by `wrap`."""

    def __init__(self, interface: str, wrap: Callable[[bytes, int], bytes], out: socket.socket) -> None:
        """`out` is connected or bound; `wrap` is given a frame and how many came before it."""
        super().__init__(daemon=True)
        self._wrap = wrap
        self._out = out
        self._over = threading.Event()
        with entered(BRIDGE_HOST):
            self._in = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS))
        self._in.bind((interface, ALL_PROTOCOLS))
        self._in.settimeout(0.2)

    def run(self) -> None:
        go_first()
        count = 0
        while not self._over.is_set():
            try:
                frame, place = self._in.recvfrom(LARGEST)
            except TimeoutError:
                continue
            if place[2] != PACKET_OUTGOING:
                self._out.send(self._wrap(frame, count))
                count += 1

    def close(self) -> None:
        self._over.set()
        self.join(2)
        self._in.close()
        self._out.close()


@contextmanager
def vlan(name: str, identifier: int = 7) -> Iterator[str]:
    """A mirror's destination: what goes there comes to the recorder's interface with a tag."""
    with entered(BRIDGE_HOST):
        out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    out.bind((cable(name), 0))
    with relayed(name, lambda frame, _: tagged(frame, identifier), out) as destination:
        yield destination


@contextmanager
def erspan(name: str, network: int) -> Iterator[str]:
    """A mirror's destination: what goes there comes to the recorder's address as ERSPAN II."""
    tunnel_ends(name, network)
    with entered(BRIDGE_HOST):
        out = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_GRE)
    out.connect((far(network), 0))
    with relayed(name, in_erspan, out) as destination:
        yield destination


@contextmanager
def relayed(name: str, wrap: Callable[[bytes, int], bytes], out: socket.socket) -> Iterator[str]:
    """The interface before a running `Relay`."""
    run(f"ip -n {BRIDGE_HOST} link add tap-{name} mtu {LARGEST} type veth peer name tip-{name} mtu {LARGEST}")
    for end in ("tap", "tip"):
        run(f"ip -n {BRIDGE_HOST} link set {end}-{name} arp off up")
    relay = Relay(f"tip-{name}", wrap, out)
    relay.start()
    try:
        yield f"tap-{name}"
    finally:
        relay.close()


@contextmanager
def witness(interface: str, path: Path) -> Iterator[None]:
    """tcpdump on an interface of the recorder: what it writes is replayed, and read by tshark."""
    command = ["ip", "netns", "exec", RECORDER, "tcpdump", "-i", interface, "-U", "-s", "0", "-Z", "root"]
    command += ["--time-stamp-precision=nano", "-w", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    process.stderr.readline()
    try:
        yield
    finally:
        process.terminate()
        process.communicate(timeout=10)


@cache
def mirrors_are_possible() -> bool:
    """Whether this kernel has what mirrors are made of."""
    try:
        with wire("mirror") as over:
            run(f"tc -n {over.namespace} qdisc add dev rx0 clsact")
            what = "protocol all u32 match u32 0 0 action mirred egress mirror dev tx0"
            run(f"tc -n {over.namespace} filter add dev rx0 ingress {what}")
    except (OSError, RuntimeError):
        return False
    return True
