"""A wire to send calls over: a pair of veth interfaces in a network namespace of its own.

In: a name. Out: a `Wire`, gone again after its `with` block. Needs root and iproute2. Nothing but what is sent comes
over it: no IPv6, no ARP.
"""

import ctypes
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

NAMESPACES = Path("/var/run/netns")
_CLONE_NEWNET = 0x40000000


@dataclass(frozen=True, slots=True)
class Wire:
    """Two interfaces joined to each other."""

    namespace: str
    sender: str
    """What is sent here..."""
    receiver: str
    """...comes in here."""

    def inside(self, *command: str) -> list[str]:
        """A command to be run in the namespace."""
        return ["ip", "netns", "exec", self.namespace, *command]


def run(*command: str) -> str:
    """Run a command of iproute2 or the like; gives what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


@cache
def is_possible() -> bool:
    """Whether this user and machine can have such wires."""
    if os.geteuid() != 0:
        return False
    try:
        with wire("probe"):
            return True
    except (OSError, RuntimeError):
        return False


@contextmanager
def wire(name: str = "wire", pairs: int = 1) -> Iterator[Wire]:
    """Make a wire; with more `pairs`, interfaces `tx0` and `rx0`, `tx1` and `rx1`, ... are all joined."""
    namespace = f"spanrec-{name}-{os.getpid()}"
    run("ip", "netns", "add", namespace)
    try:
        with entered(namespace):
            for setting in ("all", "default"):
                quiet = Path(f"/proc/sys/net/ipv6/conf/{setting}/disable_ipv6")
                if quiet.exists():
                    quiet.write_text("1")
        run("ip", "-n", namespace, "link", "set", "lo", "up")
        for number in range(pairs):
            add_pair(namespace, f"tx{number}", f"rx{number}")
        yield Wire(namespace, "tx0", "rx0")
    finally:
        run("ip", "netns", "del", namespace)


def add_pair(namespace: str, sender: str, receiver: str) -> None:
    """Join two new interfaces of a namespace. Frames stay as they are sent: no offloads."""
    run("ip", "-n", namespace, "link", "add", sender, "type", "veth", "peer", "name", receiver)
    for each in (sender, receiver):
        run("ip", "-n", namespace, "link", "set", each, "arp", "off", "multicast", "off", "mtu", "3000", "up")


@contextmanager
def entered(namespace: str) -> Iterator[None]:
    """This thread is in the namespace meanwhile: sockets that it makes there stay there."""
    libc = ctypes.CDLL(None, use_errno=True)

    def enter(descriptor: int) -> None:
        if libc.setns(descriptor, _CLONE_NEWNET) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    here = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)
    there = os.open(NAMESPACES / namespace, os.O_RDONLY)
    try:
        enter(there)
        try:
            yield
        finally:
            enter(here)
    finally:
        os.close(here)
        os.close(there)
