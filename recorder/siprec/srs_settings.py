"""Settings of `spanrec srs`: the table `[srs]`.

In: a settings file's tables, as TOML gives them. Out: `SrsSettings`, a frozen value. Raises SettingsError that names
file, table and key. Users' passwords stand in a file that it names and that is not read here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recorder.settings_table import Place, known, seconds, text, texts, truth, whole
from recorder.sip_ua.digest import ALGORITHMS, OFFERED
from recorder.sip_ua.listen import Listen, parse_listen
from recorder.sip_ua.tls import TlsFiles
from recorder.siprec import sip_settings as sip
from recorder.siprec.admission import AdmissionRules
from recorder.siprec.sip_settings import ControlSettings, Ports, Webhook
from recorder.siprec.srs_message import Strictness

DEFAULT_CONTROL = "127.0.0.1:9182"
"""Beside the other services of this machine."""
DEFAULT_SOCKETS = ("udp:0.0.0.0:5060", "tcp:0.0.0.0:5060")
_OWN = (
    *(
        "listen",
        "media_address",
        "announce",
        "ports",
        "max_streams_of_one",
        "allow",
        "users_file",
        "realm",
        "digest",
        "strictness",
    ),
    *("silence", "snapshot_after", "drain", "session_expires", "keep_received", "webhook"),
)
_LIMIT_KEYS = ("max_sessions", "max_sessions_of_one", "max_streams_of_one", "rate", "burst", "max_body", "retry_after")
KEYS = (*_OWN, *_LIMIT_KEYS, *sip.TLS, *sip.CONTROL)


@dataclass(frozen=True, slots=True)
class SrsSettings:
    """How our recording server is reached, and what it takes."""

    listen: tuple[Listen, ...] = field(default_factory=lambda: tuple(map(parse_listen, DEFAULT_SOCKETS)))
    media_address: str = ""
    """Where media is received; empty: where the INVITE came to."""
    announce: Mapping[str, str] = field(default_factory=dict)
    """Address that stands in descriptions for one of this machine's (NAT)."""
    ports: Ports = field(default_factory=lambda: Ports(40000, 49999))
    tls: TlsFiles = field(default_factory=TlsFiles)
    users_file: Path | None = None
    """Users and passwords for our digest challenge; None: nobody is challenged."""
    realm: str = "spanrec"
    """Of that challenge."""
    digest: tuple[str, ...] = OFFERED
    """Algorithms that it offers, in this order; no others are taken."""
    rules: AdmissionRules = field(default_factory=AdmissionRules)
    strictness: Strictness = Strictness.LENIENT
    silence: float = 60.0
    """s without media and SIP, after which an SRC is asked whether it is there."""
    snapshot_after: float = 5.0
    """s after which a session without metadata is asked for them."""
    drain: float = 90.0
    """s that sessions in progress have when the service is told to stop."""
    session_expires: int | None = 1800
    """s between refreshes where we choose (RFC 4028); None: no session timer."""
    keep_received: bool = True
    """What an SRC says of a call is kept beside its recording, word for word (RFC 7865, section 10: no more than the
    operator wants)."""
    control: ControlSettings = field(default_factory=lambda: ControlSettings(DEFAULT_CONTROL))
    webhooks: tuple[Webhook, ...] = ()


def load_srs(settings: Mapping[str, Any], file: Path) -> SrsSettings:
    """`[srs]` of the settings read from `file`; what is not there is as usual."""
    with Place(file, "[srs]") as place:
        table = known(settings.get("srs", {}), KEYS)
        limits: dict[str, Any] = {}
        for key, (name, read) in _LIMITS.items():
            if key in table:
                place.key = key
                limits[name] = read(table[key])
        if "allow" in table:
            limits["allowed"] = sip.allowed(place, table["allow"])
        said: dict[str, Any] = {}
        for key, read in _READERS.items():
            if key in table:
                place.key = key
                said[key] = read(table[key])
        if "ports" in said:
            # No client gets all of them, whatever it offers.
            limits.setdefault("streams_of_one", max((said["ports"].high + 1 - said["ports"].low) // 2 * 4 // 5, 1))
        if "webhook" in table:
            said["webhooks"] = sip.webhooks(file, "srs.webhook", table["webhook"])
        return SrsSettings(
            rules=AdmissionRules(**limits),
            tls=sip.tls_files(place, table),
            control=sip.control(place, table, DEFAULT_CONTROL),
            **said,
        )


def _rate(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 100_000:
        raise ValueError(f"must be requests a second, above 0, not {value!r}")
    return float(value)


def _announced(value: object) -> dict[str, str]:
    table = known(value, value if isinstance(value, dict) else ())
    return {sip.address(own): sip.address(told) for own, told in table.items()}


def _algorithms(value: object) -> tuple[str, ...]:
    names = tuple(texts(value))
    if not names or len(set(names)) < len(names) or not set(names) <= set(ALGORITHMS):
        raise ValueError(f"must be some of {', '.join(ALGORITHMS)}, each once, not {value!r}")
    return names


def _strictness(value: object) -> Strictness:
    if value not in list(Strictness):
        raise ValueError(f"{value!r} is none of {', '.join(Strictness)}")
    return Strictness(str(value))


_READERS: dict[str, Callable[[object], Any]] = {
    "listen": sip.sockets,
    "media_address": sip.address,
    "announce": _announced,
    "ports": sip.ports,
    "users_file": sip.path,
    "realm": text,
    "digest": _algorithms,
    "strictness": _strictness,
    "silence": lambda value: seconds(value, 5, 86400),
    "snapshot_after": lambda value: seconds(value, 0.5, 3600),
    "drain": lambda value: seconds(value, 0, 86400),
    "session_expires": sip.session_expires,
    "keep_received": truth,
}
_LIMITS: dict[str, tuple[str, Callable[[object], Any]]] = {
    "max_sessions": ("most_sessions", lambda value: whole(value, 1, 1_000_000)),
    "max_sessions_of_one": ("most_of_one", lambda value: whole(value, 1, 1_000_000)),
    "max_streams_of_one": ("streams_of_one", lambda value: whole(value, 1, 32768)),
    "rate": ("rate", _rate),
    "burst": ("burst", lambda value: whole(value, 1, 1_000_000)),
    "max_body": ("largest_body", lambda value: whole(value, 1024, 4 << 20)),
    "retry_after": ("retry_after", lambda value: whole(value, 1, 3600)),
}
"""Key -> field of `AdmissionRules`, and what reads it."""
