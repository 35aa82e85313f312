"""Settings of `spanrec src`: the table `[src]`, and `[[server]]`.

In: a settings file's tables, as TOML gives them. Out: `SrcSettings`, a frozen value. Raises SettingsError that names
file, table and key. Secrets stand in files that it names; they are read only where `secrets` says so, for other
commands read the same settings under other users.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from recorder.amounts import Age, Amount, parse_age, parse_amount
from recorder.policy_conditions import LONGEST, regular
from recorder.settings_table import Place, known, seconds, text, texts, truth, whole
from recorder.sip_ua.listen import Listen
from recorder.sip_ua.tls import TlsFiles
from recorder.siprec import sip_settings as sip
from recorder.siprec.admission import Allowed
from recorder.siprec.server_list import ServerList, load_servers, protection
from recorder.siprec.sip_settings import ControlSettings, Ports, Webhook
from recorder.siprec.spool import AT_ONCE
from recorder.siprec.src_decision import Choice, Insecure, Instance, OnBye, OnHold, Server

DEFAULT_CONTROL = "127.0.0.1:9181"
"""Beside the other services of this machine."""
KINDS = ("audio", "video", "text", "image", "application")
INSTANCE = (
    *("choice", "no_failover", "persistent", "kinds", "media_address", "local", "pause_on_hold", "on_bye", "insecure"),
    *("spool", "timeout", "answer_timeout", "session_expires"),
)
"""Keys of `[src]` that a rule or an instance may say otherwise."""
_SRC = (
    *("srs", "listen", "sockets", "identity", "ports", "default", "media", "keys_in_clear"),
    *("heed_preference", "allow", "allow_users_file", "sets", "webhook", "history"),
)
_SPOOL = ("spool_dir", "spool_size", "spool_age", "spool_at_once")
KEYS = (*_SRC, *_SPOOL, *INSTANCE, *sip.TLS, *sip.CONTROL)
MOST_AT_ONCE = 100
"""Each late delivery has two threads."""
LEAST_HISTORY, MOST_HISTORY = 32_000_000, 8_000_000_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class SpoolSettings:
    """Where calls wait for a server."""

    directory: Path | None = None
    """None: beside the recordings."""
    max_size: Amount = field(default_factory=lambda: Amount(octets=10_000_000_000))
    """Octets, or a share of the disk; the oldest goes first."""
    max_age: Age = field(default_factory=lambda: Age(7, "d"))
    """After which a call is given up."""
    at_once: int = AT_ONCE
    """Calls that are delivered at a time."""


@dataclass(frozen=True, slots=True)
class SrcSettings:
    """What an SRC does where no rule says otherwise."""

    usual: Instance = field(default_factory=lambda: Instance(()))
    """Servers may be none: then rules or an option name them."""
    servers: ServerList = field(default_factory=ServerList)
    listen: tuple[Listen, ...] = ()
    """Of the usual agent; none: sockets as they are needed."""
    sockets: Mapping[str, tuple[Listen, ...]] = field(default_factory=dict)
    """Of further agents, by the name that `local` says."""
    identity: str = ""
    """From, a name-addr."""
    tls: TlsFiles = field(default_factory=TlsFiles)
    ports: Ports = field(default_factory=lambda: Ports(35000, 39999))
    default: bool | None = None
    """Whether calls go to servers of which no rule holds; None: those that the policy records do."""
    heed_preference: bool = False
    """`a=recordpref` of participants turns recording off, and pauses it."""
    allowed: tuple[Allowed, ...] = ()
    """Who may ask us for calls, by an INVITE of its own; empty: nobody."""
    allow_users_file: Path | None = None
    """Users and passwords for our digest challenge to them."""
    history: int = 256_000_000
    """Octets of media in memory, at most, for servers and sessions that come late."""
    spool: SpoolSettings = field(default_factory=SpoolSettings)
    control: ControlSettings = field(default_factory=lambda: ControlSettings(DEFAULT_CONTROL))
    webhooks: tuple[Webhook, ...] = ()


def load_src(settings: Mapping[str, Any], file: Path, *, secrets: sip.Secrets | None = None) -> SrcSettings:
    """`[src]` and `[[server]]` of the settings read from `file`; what is not there is as usual. `secrets` read the
    passwords; without, there are none."""
    with Place(file, "[src]") as place:
        table = known(settings.get("src", {}), KEYS)
        place.key = "media"
        way = protection(table.get("media", "avp"))
        place.key = "keys_in_clear"
        plain = Server("", protection=way, keys_in_clear=truth(table.get("keys_in_clear", False)))
    servers = load_servers(settings, file, plain, secrets=secrets)
    with Place(file, "[src]") as place:
        sockets = _sockets(place, table)
        place.key = "srs"
        listed = servers.find(table["srs"]) if "srs" in table else ()
        webhooks = sip.webhooks(file, "src.webhook", table["webhook"]) if "webhook" in table else ()
        allowed = sip.allowed(place, table["allow"]) if "allow" in table else ()
        return SrcSettings(
            usual=instance_of(place, table, Instance(listed), sockets),
            servers=servers,
            sockets=sockets,
            tls=sip.tls_files(place, table),
            control=sip.control(place, table, DEFAULT_CONTROL),
            webhooks=webhooks,
            allowed=allowed,
            spool=_spool(place, table),
            **_rest(place, table),
        )


def instance_of(place: Place, table: Mapping[str, Any], usual: Instance, sockets: Mapping[str, object]) -> Instance:
    """`usual`, but for what a table says by the keys of INSTANCE."""
    said: dict[str, Any] = {}
    for key, (field_, read) in _READERS.items():
        if key in table:
            place.key = key
            said[field_] = read(table[key])
    if said.get("agent") and said["agent"] not in sockets:
        place.key = "local"
        raise ValueError(f"{said['agent']!r} is none of [src.sockets]: {', '.join(sockets) or 'there are none'}")
    return replace(usual, **said)


def final_codes(value: object) -> re.Pattern[str]:
    """Status codes after which no other server is tried: a regular expression that fits them as a whole."""
    source = text(value)
    if len(source) > LONGEST:
        raise ValueError(f"is longer than {LONGEST} characters")
    return regular(source.removeprefix("/").removesuffix("/"))


def _kinds(value: object) -> tuple[str, ...]:
    kinds = texts(value)
    odd = next((each for each in kinds if each not in KINDS), None)
    if odd is not None or not kinds:
        raise ValueError(f"{odd!r} is none of {', '.join(KINDS)}")
    return tuple(dict.fromkeys(kinds))


def _one_of(kinds: Any) -> Any:
    def read(value: object) -> Any:
        if value not in list(kinds):
            raise ValueError(f"{value!r} is none of {', '.join(kinds)}")
        return kinds(value)

    return read


_READERS: dict[str, tuple[str, Any]] = {
    "choice": ("choice", _one_of(Choice)),
    "no_failover": ("final", final_codes),
    "persistent": ("persistent", truth),
    "kinds": ("media", _kinds),
    "media_address": ("media_host", sip.address),
    "local": ("agent", text),
    "pause_on_hold": ("on_hold", lambda value: OnHold.PAUSE if truth(value) else OnHold.SEND),
    "on_bye": ("on_bye", _one_of(OnBye)),
    "insecure": ("insecure", _one_of(Insecure)),
    "spool": ("spool", truth),
    "timeout": ("timeout", lambda value: seconds(value, 0.5, 60)),
    "answer_timeout": ("answer_timeout", lambda value: seconds(value, 1, 300)),
    "session_expires": ("session_expires", sip.session_expires),
}
"""Key -> field of `Instance`, and what reads it."""


def _sockets(place: Place, table: Mapping[str, Any]) -> dict[str, tuple[Listen, ...]]:
    place.key = "sockets"
    named = table.get("sockets", {})
    found = {}
    for name, value in known(named, named if isinstance(named, dict) else ()).items():
        place.key = f"sockets.{name}"
        if not _NAME.fullmatch(name):
            raise ValueError("is no name; use letters, digits, ._-")
        found[name] = sip.sockets(value)
    return found


def _history(value: object) -> int:
    found = parse_amount(value, share=False).octets
    if not LEAST_HISTORY <= found <= MOST_HISTORY:
        raise ValueError(f"{value!r} is no amount of memory; give 32MB to 8GB")
    return found


def _spool(place: Place, table: Mapping[str, Any]) -> SpoolSettings:
    readers: tuple[tuple[str, Any], ...] = (
        ("directory", sip.path),
        ("max_size", parse_amount),
        ("max_age", parse_age),
        ("at_once", lambda value: whole(value, 1, MOST_AT_ONCE)),
    )
    found: dict[str, Any] = {}
    for key, (name, read) in zip(_SPOOL, readers, strict=True):
        if key in table:
            place.key = key
            found[name] = read(table[key])
    return SpoolSettings(**found)


def _rest(place: Place, table: Mapping[str, Any]) -> dict[str, Any]:
    """Keys that need no more than their own reader, as far as they are there."""
    readers: dict[str, Any] = {
        "listen": sip.sockets,
        "identity": sip.name_addr,
        "ports": sip.ports,
        "default": truth,
        "heed_preference": truth,
        "allow_users_file": sip.path,
        "history": _history,
    }
    found = {}
    for key, read in readers.items():
        if key in table:
            place.key = key
            found[key] = read(table[key])
    return found
