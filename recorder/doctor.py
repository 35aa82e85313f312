"""`spanrec doctor`: what of the parts that spanrec can do without is present, and what each is for.

In: this machine. Out: findings, as a table or JSON. Changes nothing; asks other programs for their version only. What
it says of an interface is in `recorder.doctor_interface`.
"""

import importlib
import json
import platform
import shutil
import socket
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Annotated

import typer

from recorder.console import printable

CODECS = {
    "g722": "G.722",
    "g729": "G.729",
    "adpcm_g726": "G.726",
    "adpcm_g726le": "G.726, little-endian packing",
    "g723_1": "G.723.1",
    "gsm": "GSM",
    "ilbc": "iLBC",
    "speex": "Speex",
    "amrnb": "AMR",
    "amrwb": "AMR-WB",
    "opus": "Opus",
}
"""Decoders of libavcodec by name."""
_SECONDS = 10
NEEDS_ATTENTION = 3
"""Exit status where an interface has findings."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One part."""

    part: str
    present: bool
    detail: str
    purpose: str
    """What it is for."""
    needed: bool = False
    """Without it spanrec does not work."""


def doctor_command(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    interface: Annotated[
        str | None, typer.Option("-i", "--interface", metavar="NAME", help="Tell what spoils this mirror port instead.")
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0, max=3600, metavar="N", help="Watch the interface so long; 0: its settings only.")
    ] = 5.0,
) -> None:
    """Tell which optional parts are present on this machine, or what is wrong with a mirror port."""
    if interface is not None:
        from recorder.doctor_interface import examine_interface

        if examine_interface(interface, seconds, as_json):
            raise typer.Exit(NEEDS_ATTENTION)
        return
    findings = list(examine())
    if as_json:
        print(json.dumps({"version": version("spanrec"), "findings": [asdict(f) for f in findings]}, indent=2))
    else:
        _print(findings)
    if any(finding.needed and not finding.present for finding in findings):
        raise typer.Exit(1)


def examine() -> Iterator[Finding]:
    """All findings."""
    for purpose, needed, look in _PARTS:
        part, detail, present = _looked(look)
        yield Finding(part, present, detail, purpose, needed)


def _print(findings: list[Finding]) -> None:
    width = max(len(finding.part) for finding in findings)
    print(f"spanrec {version('spanrec')}, Python {platform.python_version()}, {platform.system()}")
    for finding in findings:
        mark = "ok     " if finding.present else "MISSING" if finding.needed else "absent "
        print(printable(f"{mark}  {finding.part:<{width}}  {finding.detail}; {finding.purpose}"))


Look = Callable[[], tuple[str, str, bool]]
"""Gives the part's name, detail and presence. May raise: then the part is not there."""


def _looked(look: Look) -> tuple[str, str, bool]:
    try:
        return look()
    except Exception as error:  # whatever a broken installation raises is the finding
        return look.__name__.strip("_").replace("_", " "), f"{type(error).__name__}: {error}", False


def _kernels() -> tuple[str, str, bool]:
    from recorder.warmup import kernels_are_cached

    cached = kernels_are_cached()
    numba = f"numba {version('numba')}"
    return "kernels", f"{numba}, {'compiled' if cached else 'will be compiled by the first replay, once'}", True


def _tshark() -> tuple[str, str, bool]:
    program = shutil.which("tshark")
    if program is None:
        return "tshark", "no such program (package tshark)", False
    told = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=_SECONDS, check=True)
    return "tshark", told.stdout.partition("\n")[0].strip(), True


def _audio_files() -> tuple[str, str, bool]:
    soundfile = importlib.import_module("soundfile")
    formats = soundfile.available_formats()
    wanted = {"wav": "WAV", "flac": "FLAC", "ogg": "OGG", "mp3": "MP3"}
    there = [name for name, libsndfile in wanted.items() if libsndfile in formats]
    if "ogg" in there and "OPUS" not in soundfile.available_subtypes("OGG"):
        there.remove("ogg")
    missing = sorted(set(wanted) - set(there))
    detail = f"{soundfile.__libsndfile_version__}: {', '.join(there)}"
    return "audio files", detail + (f"; without {', '.join(missing)}" if missing else ""), "wav" in there


def _codecs() -> tuple[str, str, bool]:
    av = importlib.import_module("av")
    there, missing = [], []
    for decoder, name in CODECS.items():
        try:
            av.codec.Codec(decoder, "r")
            there.append(name)
        except ValueError:
            missing.append(name)
    detail = f"PyAV {av.__version__}: {', '.join(there)}"
    return "codecs", detail + (f"; without {', '.join(missing)}" if missing else ""), bool(there)


def _resampler() -> tuple[str, str, bool]:
    return "resampler", f"soxr {importlib.import_module('soxr').__version__}", True


def _srtp() -> tuple[str, str, bool]:
    importlib.import_module("cryptography.hazmat.primitives.ciphers")
    return "srtp", f"cryptography {version('cryptography')}", True


def _zstd() -> tuple[str, str, bool]:
    return "zstd", f"zstandard {importlib.import_module('zstandard').__version__}", True


def _catalogue() -> tuple[str, str, bool]:
    sqlalchemy = importlib.import_module("sqlalchemy")
    return "catalogue", f"SQLAlchemy {sqlalchemy.__version__}, SQLite {sqlite3.sqlite_version}", True


def _packet_socket() -> tuple[str, str, bool]:
    family = getattr(socket, "AF_PACKET", None)
    if family is None:
        return "packet socket", "this system has none", False
    try:
        socket.socket(family, socket.SOCK_RAW, 0).close()
    except PermissionError:
        return "packet socket", "not permitted (needs CAP_NET_RAW)", False
    return "packet socket", "permitted", True


_PARTS: tuple[tuple[str, bool, Look], ...] = (
    ("the packet path", True, _kernels),
    ("recordings", True, _audio_files),
    ("index of the recordings", True, _catalogue),
    ("streams of different rates in one call", True, _resampler),
    ("codecs beyond G.711 and L16", False, _codecs),
    ("calls encrypted with keys from the SDP", False, _srtp),
    ("captures packed with zstd", False, _zstd),
    ("--dissector tshark and --verify", False, _tshark),
    ("capturing from an interface; replay does without", False, _packet_socket),
)
