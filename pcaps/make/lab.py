"""Make the captures of pcaps/: `python pcaps/make/lab.py [NAME...]`, as root, with the programs that README.md lists.

In: names of captures, all where none is given. Out: pcaps/NAME.pcap(ng) and its entry in pcaps/index.json. What the
scripts sent is compared with what tshark saw before a capture is kept.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from pcaps.make import baresip_calls, observe, proxy_calls, sipp_calls, tls_calls, transfer_calls
from pcaps.make.network import Lab, network

HOME = Path(__file__).resolve().parent.parent
Maker = Callable[[Lab], dict[str, Any]]

CAPTURES: dict[str, tuple[Maker, tuple[str, ...]]] = {
    "pcmu": (sipp_calls.pcmu, ("sipp",)),
    "pcma_wraps": (sipp_calls.pcma_wraps, ("sipp",)),
    "g722": (sipp_calls.g722, ("sipp", "ffmpeg")),
    "ipv6": (sipp_calls.ipv6, ("sipp",)),
    "tcp": (sipp_calls.tcp, ("sipp",)),
    "loss": (sipp_calls.loss, ("sipp", "nft")),
    "impaired": (sipp_calls.impaired, ("sipp",)),
    "restart": (sipp_calls.restart, ("sipp",)),
    "dtmf": (sipp_calls.dtmf, ("sipp",)),
    "hold": (sipp_calls.hold, ("sipp",)),
    "codec_change": (sipp_calls.codec_change, ("sipp",)),
    "late_offer": (sipp_calls.late_offer, ("sipp",)),
    "cancelled": (sipp_calls.cancelled, ("sipp",)),
    "refused": (sipp_calls.refused, ("sipp",)),
    "transfer_attended": (transfer_calls.transfer_attended, ("sipp",)),
    "relayed": (proxy_calls.relayed, ("sipp", "kamailio", "rtpengine")),
    "forked": (proxy_calls.forked, ("sipp", "kamailio")),
    "websocket": (proxy_calls.websocket, ("sipp", "kamailio")),
    "tls": (tls_calls.tls, ("sipp", "openssl")),
    "baresip_g722": (baresip_calls.baresip_g722, ("baresip", "ffmpeg")),
    "srtp_sdes": (baresip_calls.srtp_sdes, ("baresip",)),
    "transfer_blind": (baresip_calls.transfer_blind, ("baresip",)),
}
"""Who makes each capture, and the programs that take part."""
PCAPNG = {"tcp", "g722"}
"""Captured with dumpcap, the rest with tcpdump."""

VERSION_OPTION = {"sipp": "-v", "baresip": "-v", "kamailio": "-v", "ffmpeg": "-version"}
"""The rest takes --version."""


def version(program: str) -> str:
    """First line of what the program says of itself."""
    done = subprocess.run(
        [program, VERSION_OPTION.get(program, "--version")], capture_output=True, text=True, check=False
    )
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    wanted = [line for line in lines if any(sign.isdigit() for sign in line)]
    return wanted[0].partition(" Copyright")[0].rstrip(".") if wanted else "unknown"


def lost_on_the_way(capture: Path, known: dict[str, Any]) -> None:
    """Put what the network dropped into the streams' facts: sent, seen, and which sequence numbers are missing."""
    for call in known["calls"]:
        for stream in call["streams"]:
            seen = [packet.sequence for packet in observe.rtp_packets(capture) if packet.ssrc == stream["ssrc"]]
            missing = sorted(set(range(min(seen), max(seen) + 1)) - set(seen))
            stream |= {"sent": stream["packets"], "packets": len(set(seen)), "lost": len(missing)}
            stream |= {"missing_sequences": missing, "first_seen": min(seen)}


def check(name: str, capture: Path, known: dict[str, Any]) -> None:
    """Compare the streams' facts with tshark's count."""
    counted = observe.packets_per_ssrc(capture)
    expected: dict[str, int] = {}
    for call in known["calls"]:
        for stream in call["streams"]:
            copies = 1 + stream.get("copies", 0)
            total = stream["packets"] * copies + stream.get("duplicates", 0)
            expected[stream["ssrc"]] = expected.get(stream["ssrc"], 0) + total
    if expected != counted:
        raise RuntimeError(f"{name}: tshark sees {counted}, the scripts sent {expected}")


def make(name: str) -> dict[str, Any]:
    """One capture and its entry of the index."""
    maker, programs = CAPTURES[name]
    tap = "dumpcap" if name in PCAPNG else "tcpdump"
    target = HOME / f"{name}.{'pcapng' if name in PCAPNG else 'pcap'}"
    with tempfile.TemporaryDirectory(prefix="lab-") as directory, network(Path(directory)) as lab:
        path = Path(directory) / target.name
        with lab.capture(path, tap):
            try:
                known = maker(lab)
            except Exception:
                shutil.copytree(directory, f"/tmp/lab-{name}", dirs_exist_ok=True)
                raise
        if known.pop("observe_loss", False):
            lost_on_the_way(path, known)
        if codec := known.pop("observe_phones", ""):
            known["calls"] = baresip_calls.calls_of_phones(path, codec)
            if len(known["calls"]) > 1:
                known["groups"] = [[call["call_id"] for call in known["calls"]]]
        if known.pop("observe_hops", False):
            proxy_calls.hops(path, known)
        shutil.copy(path, f"/tmp/lab-{name}.pcap")
        check(name, path, known)
        times = observe.dialog_times(path)
        for call in known["calls"]:
            call["times"] = times[call["call_id"]]
            # A client's TCP port is its system's choice.
            call["caller"]["address"] = call["times"].pop("caller_address")
            bounds = [*call["times"].get("reinvites", []), None]
            for index, one in enumerate(call["holds"]):
                one |= {"from": bounds[2 * index], "to": bounds[2 * index + 1]}
        shutil.copy(path, target)
        if path.with_suffix(".keys").exists():
            shutil.copy(path.with_suffix(".keys"), target.with_suffix(".keys"))
    used = [*programs, tap]
    return {
        "file": target.name, "about": (maker.__doc__ or "").strip(), "command": f"python pcaps/make/lab.py {name}",
        "programs": {program: version(program) for program in used}, "link_type": observe.link_type(target),
        "packets": observe.packet_count(target), **known,
    }  # fmt: skip


def main() -> None:
    index_path = HOME / "index.json"
    index = json.loads(index_path.read_text()) if index_path.exists() else {}
    for name in sys.argv[1:] or CAPTURES:
        index[name] = make(name)
        print(f"{index[name]['file']}: {index[name]['packets']} packets")
        ordered = {key: index[key] for key in CAPTURES if key in index}
        index_path.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
