"""The recording policy as it stands in the settings: `[policy]` and `[[rule]]`.

In: the tables of a settings file, as TOML gives them. Out: a `Policy`. Raises SettingsError that names file, rule and
key. What is not known is an error, so that no misspelt condition makes a rule hold for calls that it should not.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from capture.realms import realm_of_vlans, realm_of_vni
from recorder import policy_conditions as conditions
from recorder.policy import Action, Decision, Policy, Rule
from recorder.policy_conditions import Condition, Direction, Local
from recorder.policy_hours import parse_hours
from recorder.settings import SettingsError
from recorder.settings_table import Place, known, texts, truth
from recorder.tags import tag

MAX_VLAN = 4094
MAX_VNI = (1 << 24) - 1

_V4 = re.compile(r"[0-9./]+")
_DOING = ("name", "action", "keep_packets", "tags")
SENDING = (
    *("siprec", "srs", "instances", "media", "choice", "no_failover", "persistent", "kinds", "media_address", "local"),
    *("pause_on_hold", "on_bye", "insecure", "spool", "timeout", "answer_timeout", "session_expires"),
    *("caller_as", "callee_as", "group", "group_extension", "session_extension", "from", "to", "add_headers"),
    *("pause_digits", "resume_digits", "pause_by"),
)
"""What a rule says of recording servers: see `siprec.src_rules`."""
_POLICY = ("default", "keep_packets", "local", "tags")


def load_policy(settings: Mapping[str, Any], path: Path) -> Policy:
    """The policy of the settings read from `path`. Without any, every call is recorded."""
    table = settings.get("policy", {})
    with Place(path, "[policy]") as place:
        known(table, _POLICY)
        place.key = "local"
        local = _local(texts(table.get("local", ())))
        otherwise = _decision(place, table, table.get("default", "record"), "default", "no rule")
    rules = settings.get("rule", [])
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        raise SettingsError(f"{path}: rule must be tables: write [[rule]]")
    numbered = enumerate(rules, 1)
    return Policy(tuple(_rule(path, number, rule, local, otherwise) for number, rule in numbered), otherwise)


def _rule(path: Path, number: int, table: Mapping[str, Any], local: Local, otherwise: Decision) -> Rule:
    name = table.get("name")
    said = f"rule {number}" if name is None else f"rule {number} ({name})"
    with Place(path, said) as place:
        known(table, (*_DOING, *_CONDITIONS, *SENDING))
        place.key = "name"
        if name is not None and not (isinstance(name, str) and 0 < len(name) <= 64 and name.isprintable()):
            raise ValueError(f"{name!r} is no name; write up to 64 characters")
        held = []
        for key, make in _CONDITIONS.items():
            if key in table:
                place.key = key
                held += make(table[key], local)
        place.key = "action"
        if "action" not in table and "siprec" not in table:
            raise ValueError("is missing; write record, metadata or skip")
        return Rule(tuple(held), _decision(place, table, table.get("action", otherwise.action), "action", said))


def _decision(place: Place, table: Mapping[str, Any], action: Any, key: str, rule: str) -> Decision:
    place.key = key
    if action not in list(Action):
        raise ValueError(f"{action!r} is none of {', '.join(Action)}")
    place.key = "keep_packets"
    keep = truth(table.get("keep_packets", False))
    place.key = "tags"
    tags = tuple(sorted({tag(each) for each in texts(table.get("tags", ()))}))
    if action == Action.SKIP and (keep or tags):
        place.key = "tags" if tags else "keep_packets"
        raise ValueError("has no effect on calls that are skipped; leave it out")
    return Decision(Action(action), keep, tags, rule)


def _local(listed: list[str]) -> Local:
    """Networks and domains, told apart by their characters."""
    networks, domains = [], []
    for text in listed:
        if ":" in text or _V4.fullmatch(text):
            networks.append(conditions.network(text))
        else:
            domains.append(conditions.matcher(text))
    return Local(tuple(networks), tuple(domains))


def _some(value: object) -> list[str]:
    """A string, or several, but not none: that would hold for no call."""
    found = texts(value)
    if not found:
        raise ValueError("is an empty list, which holds for no call; leave it out")
    return found


def _headers(value: object) -> list[Condition]:
    if not isinstance(value, dict) or not value:
        raise ValueError('must be a table: header = { "X-Tenant" = "acme*" }')
    return [conditions.header(name, _some(patterns)) for name, patterns in value.items()]


def _directions(value: object, local: Local) -> list[Condition]:
    if not local.networks and not local.domains:
        raise ValueError('says nothing without [policy] local = ["10.0.0.0/8", "example.com"]')
    wanted = _some(value)
    for text in wanted:
        if text not in list(Direction):
            raise ValueError(f"{text!r} is none of {', '.join(Direction)}")
    return [conditions.direction(map(Direction, wanted), local)]


def _realms(value: object, largest: int, what: str, realm: Callable[..., int]) -> list[Condition]:
    """A number, `"outer.inner"` for nested ones, or several of either."""
    listed = value if isinstance(value, list) else [value]
    realms = []
    for each in listed:
        numbers = each.split(".") if isinstance(each, str) else [each]
        try:
            chosen = [number if type(number) is int else int(str(number), 10) for number in numbers]
        except ValueError:
            chosen = [-1]
        most = (largest, *(MAX_VLAN for _ in chosen[1:]))
        if any(not 0 <= number <= limit for number, limit in zip(chosen, most, strict=True)):
            raise ValueError(f'{each!r} is no {what}; write 100, or "10.100" where one stands in another')
        realms.append(realm(*chosen))
    if not realms:
        raise ValueError("is an empty list, which holds for no call; leave it out")
    return [conditions.realm(realms)]


def _percent(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 100:
        raise ValueError(f"must be a number above 0 and up to 100, not {value!r}")
    return float(value)


_Maker = Callable[[Any, Local], list[Condition]]
_CONDITIONS: dict[str, _Maker] = {
    "media_only": lambda value, _: [conditions.media_only(truth(value))],
    "vlan": lambda value, _: _realms(value, MAX_VLAN, "VLAN", realm_of_vlans),
    "vxlan": lambda value, _: _realms(value, MAX_VNI, "VXLAN network identifier", realm_of_vni),
    "percent": lambda value, _: [conditions.percent(_percent(value))],
    "address": lambda value, _: [conditions.address(map(conditions.network, _some(value)))],
    "caller": lambda value, _: [conditions.caller(_some(value))],
    "callee": lambda value, _: [conditions.callee(_some(value))],
    "number": lambda value, _: [conditions.number(_some(value))],
    "caller_name": lambda value, _: [conditions.caller_name(_some(value))],
    "hours": lambda value, _: [conditions.hours([parse_hours(text) for text in _some(value)])],
    "direction": _directions,
    "header": lambda value, _: _headers(value),
}
"""Makers of conditions by key, the cheapest first: a rule is given up at the first that does not hold."""
