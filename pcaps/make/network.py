"""The lab's network: hosts as network namespaces on one bridge, and a tap on the bridge as a mirror port would be.

In: names of hosts. Out: processes started inside them, a capture of all that crossed the bridge. Everything it makes is
named `srlab-...`, and all of it is removed when the `with` block ends, whatever happened.
"""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BRIDGE_HOST = "srlab-wire"
HOSTS = {"a": 11, "b": 12, "c": 13, "p": 20}
"""Last part of each host's address: caller, callee, a third party, a proxy."""


def run(command: str, check: bool = True) -> str:
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{command}: {done.stderr.strip()}")
    return done.stdout


def address(host: str, version: int = 4) -> str:
    return f"10.33.0.{HOSTS[host]}" if version == 4 else f"fd33::{HOSTS[host]}"


class Lab:
    """A running network. Processes are ended by their own ids, never by name."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.running: list[subprocess.Popen[bytes]] = []

    def start(
        self, host: str, *command: str, log: str = "", stdin: int | None = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        """Start a program on a host; its output goes to `work`/`log`.log."""
        with (self.work / f"{log or Path(command[0]).name}.log").open("ab") as out:
            process = subprocess.Popen(
                ["ip", "netns", "exec", f"srlab-{host}" if len(host) == 1 else host, *command],
                stdin=stdin, stdout=out, stderr=subprocess.STDOUT, cwd=self.work,
            )  # fmt: skip
        self.running.append(process)
        return process

    def drop(self, host: str, match: str) -> None:
        """Lose what a host sends and nftables' `match` picks, where its cable enters the bridge: neither the sender nor
        the tap notices (the kernel here has no netem)."""
        chain = f'type filter hook ingress device "w{host}" priority 0;\n{match} drop\n'
        rules = f"table netdev loss_{host} {{\nchain c {{\n{chain}}}\n}}\n"
        command = ["ip", "netns", "exec", BRIDGE_HOST, "nft", "-f", "-"]
        subprocess.run(command, input=rules.encode(), check=True, capture_output=True)

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self.running.remove(process)

    @contextmanager
    def capture(self, path: Path, program: str = "tcpdump") -> Iterator[None]:
        """Capture the bridge into `path` for as long as the block lasts: pcap by tcpdump, pcapng by dumpcap."""
        what = "udp or tcp"
        if program == "tcpdump":
            tap = self.start(BRIDGE_HOST, "tcpdump", "-i", "br0", "-U", "-s", "0", "-Z", "root", "-w", str(path), what)
        else:
            tap = self.start(BRIDGE_HOST, "dumpcap", "-q", "-i", "br0", "-f", what, "-w", str(path))
        time.sleep(1.2)
        yield
        time.sleep(1.0)
        self.stop(tap)


@contextmanager
def network(work: Path) -> Iterator[Lab]:
    """Hosts a, b, c and p on 10.33.0.0/24 and fd33::/64, with fixed MAC addresses."""
    lab = Lab(work)
    spaces = [BRIDGE_HOST, *(f"srlab-{host}" for host in HOSTS)]
    try:
        for space in spaces:
            run(f"ip netns add {space}")
            run(f"ip -n {space} link set lo up")
        run(f"ip -n {BRIDGE_HOST} link add br0 type bridge mcast_snooping 0")
        run(f"ip netns exec {BRIDGE_HOST} sysctl -q -w net.ipv6.conf.all.disable_ipv6=1")
        run(f"ip -n {BRIDGE_HOST} link set br0 up promisc on")
        for host, number in HOSTS.items():
            space = f"srlab-{host}"
            cable = f"type veth peer name w{host} netns {BRIDGE_HOST}"
            run(f"ip -n {space} link add eth0 address 02:33:00:00:00:{number:02x} {cable}")
            run(f"ip -n {BRIDGE_HOST} link set w{host} master br0 up")
            run(f"ip -n {space} addr add {address(host)}/24 dev eth0")
            run(f"ip -n {space} addr add {address(host, 6)}/64 dev eth0 nodad")
            run(f"ip netns exec {space} ethtool -K eth0 tx off", check=False)
            run(f"ip -n {space} link set eth0 up")
        time.sleep(0.5)
        yield lab
    finally:
        for process in list(lab.running):
            lab.stop(process)
        for space in spaces:
            run(f"ip netns del {space}", check=False)
