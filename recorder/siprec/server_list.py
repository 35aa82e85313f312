"""Recording servers as settings and options name them.

In: `[[server]]` tables, `[src.sets]`, and lists such as `"sip:rec1;transport=tcp, backup"`, whose items are SIP URIs or
names of those tables. Out: `Server` values, in order. Raises ValueError or SpanrecError with a phrase. Passwords are
read from files by `Secrets`, and only where these are given.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from recorder.settings_table import Place, known, text, texts, truth, whole
from recorder.sip_ua.api import Credentials
from recorder.siprec.sip_settings import Secrets, path, sip_uri
from recorder.siprec.src_decision import Protection, Server

MOST_SERVERS = 32
"""In one list."""
KEYS = ("name", "uri", "weight", "user", "password_file", "realm", "media", "keys_in_clear", "via")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_BETWEEN = re.compile(r"\s*,\s*(?=sips?:|<|[A-Za-z0-9][A-Za-z0-9._-]*\s*(?:,|$))", re.IGNORECASE)
"""Commas between items: those inside of a URI are followed by neither a scheme nor a whole name."""


@dataclass(frozen=True, slots=True)
class ServerList:
    """The servers that have names."""

    servers: Mapping[str, Server] = field(default_factory=dict)
    sets: Mapping[str, tuple[Server, ...]] = field(default_factory=dict)
    usual: Server = field(default_factory=lambda: Server(""))
    """Whose protection a server has that is only a URI."""

    def find(self, value: object) -> tuple[Server, ...]:
        """The servers of a list, at least one; a string may hold several between commas."""
        items = [value] if isinstance(value, str) else texts(value)
        found: list[Server] = []
        for item in items:
            for each in _BETWEEN.split(item.strip()) if isinstance(value, str) else (item,):
                found += self._named(each.strip())
        if not found:
            raise ValueError("names no server; write a SIP URI such as sip:recorder.example;transport=tcp")
        if len(found) > MOST_SERVERS:
            raise ValueError(f"names {len(found)} servers; {MOST_SERVERS} are the most")
        return tuple(dict.fromkeys(found))

    def _named(self, item: str) -> tuple[Server, ...]:
        if item in self.sets:
            return self.sets[item]
        if item in self.servers:
            return (self.servers[item],)
        if item[:1] == "<" and item[-1:] == ">":
            item = item[1:-1]
        if ":" not in item and _NAME.fullmatch(item):
            there = sorted({*self.servers, *self.sets})
            raise ValueError(f"{item!r} is no server; [[server]] and [src.sets] have {', '.join(there) or 'none'}")
        return (replace(self.usual, uri=sip_uri(item)),)


def protection(value: object) -> Protection:
    """`avp`, `savp`, `same-as-call`; `same` for short."""
    if value == "same":
        return Protection.SAME
    if value not in list(Protection):
        raise ValueError(f"{value!r} is none of avp, savp, same")
    return Protection(str(value))


def load_servers(settings: Mapping[str, Any], file: Path, usual: Server, *, secrets: Secrets | None) -> ServerList:
    """The tables `[[server]]` and `[src.sets]`. `usual` has what a server has that says nothing else."""
    tables = settings.get("server", [])
    with Place(file, "server") as place:
        if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
            raise ValueError("must be tables: write [[server]]")
    servers: dict[str, Server] = {}
    for number, table in enumerate(tables, 1):
        with Place(file, f"server {number}") as place:
            name, server = _server(place, known(table, KEYS), usual, secrets)
            place.key = "name"
            if name in servers:
                raise ValueError(f"{name!r} has been given to another server")
            servers[name] = server
    single = ServerList(servers, {}, usual)
    with Place(file, "[src.sets]") as place:
        sets = {}
        listed = settings.get("src", {}).get("sets", {})
        for name, value in known(listed, listed if isinstance(listed, dict) else ()).items():
            place.key = name
            if name in servers or not _NAME.fullmatch(name):
                raise ValueError("is a server's name" if name in servers else "is no name; use letters, digits, ._-")
            sets[name] = single.find(value)
    return ServerList(servers, sets, usual)


def _server(place: Place, table: dict[str, Any], usual: Server, secrets: Secrets | None) -> tuple[str, Server]:
    place.key = "name"
    name = text(table.get("name"))
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name; write up to 64 letters, digits and ._-")
    place.key = "uri"
    uri = sip_uri(table.get("uri"))
    place.key = "weight"
    weight = whole(table.get("weight", 1), 1, 1000)
    place.key = "media"
    media = protection(table["media"]) if "media" in table else usual.protection
    place.key = "keys_in_clear"
    clear = truth(table.get("keys_in_clear", usual.keys_in_clear))
    place.key = "via"
    via = sip_uri(table["via"]) if "via" in table else None
    return name, Server(uri, weight, media, clear, _credentials(place, table, secrets), via)


def _credentials(place: Place, table: dict[str, Any], secrets: Secrets | None) -> Credentials | None:
    place.key = "password_file"
    if "user" not in table and "password_file" not in table and "realm" not in table:
        return None
    password_file = path(table.get("password_file"))
    place.key = "user"
    user = text(table.get("user"))
    place.key = "realm"
    realm = text(table["realm"]) if "realm" in table else None
    place.key = "password_file"
    return Credentials(user, secrets.read(password_file, "password") if secrets is not None else "", realm)
