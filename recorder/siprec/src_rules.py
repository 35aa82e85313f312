"""What our SRC does with each call, by the rules of the settings: `[[rule]]` with conditions as capture has them.

In: a settings file's tables; facts of calls as they begin. Out: an `SrcDecision` by the first rule that holds, which is
the one that decides about recording here too. `siprec` says whether a call goes to servers; where a rule does not say,
those go that it records. Raises SettingsError that names file, rule and key.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from decoders.dtmf import DIGITS
from recorder.call_facts import CallFacts
from recorder.model import Side
from recorder.policy import Action, Policy
from recorder.policy_conditions import Condition
from recorder.policy_file import SENDING, load_policy
from recorder.settings_table import Place, known, text, truth
from recorder.sip_ua.api import Header
from recorder.siprec.server_list import protection
from recorder.siprec.sip_settings import name_addr
from recorder.siprec.snapshot import why_no_extension
from recorder.siprec.src_decision import Instance, PauseTerms, SrcDecision
from recorder.siprec.src_settings import INSTANCE, SrcSettings, instance_of, load_src
from recorder.siprec.src_words import Words, as_text, in_uri, in_xml, words

MOST_INSTANCES = 8
_PARTIES = ("caller_as", "callee_as")
_WORDS = ("group", "group_extension", "session_extension", "from", "to")
OVERRIDING = (*_PARTIES, *_WORDS, "add_headers")
PAUSING = ("pause_digits", "resume_digits", "pause_by")
_OF_INSTANCE = ("name", "srs", "media", *INSTANCE, *OVERRIDING)
_GROUPS = uuid5(NAMESPACE_URL, "urn:spanrec:group")
_TOKEN = re.compile(r"[A-Za-z0-9!%*_+`'~.-]{1,64}")
_OURS = frozenset(
    {
        *("via", "from", "to", "call-id", "cseq", "contact", "route", "record-route", "max-forwards", "require"),
        *("supported", "allow", "accept", "date", "v", "f", "t", "i", "m", "k", "l", "c", "e", "x", "min-se"),
        *("content-length", "content-type", "content-disposition", "content-encoding", "session-expires"),
        *("authorization", "proxy-authorization", "user-agent"),
    }
)
"""Header fields that are the agent's."""
_CODE = re.compile(f"[{re.escape(DIGITS)}]{{1,16}}")


@dataclass(frozen=True, slots=True)
class Template:
    """An instance, and what of it is of each call."""

    instance: Instance
    said: Mapping[str, Words] = field(default_factory=dict)
    """By field of `Overrides`."""
    headers: tuple[tuple[str, Words], ...] = ()

    @property
    def fixed(self) -> bool:
        """It is the same for every call."""
        return all(each.fixed for each in self.said.values()) and all(each.fixed for _, each in self.headers)

    def fill(self, facts: CallFacts) -> Instance:
        """The instance for a call."""
        found = {key: each.fill(facts, _ESCAPES.get(key, as_text)) for key, each in self.said.items()}
        group = found.pop("group", "")
        said: dict[str, Any] = {**found, "group": group_of(group)} if group else dict(found)
        overrides = replace(self.instance.overrides, **said)
        filled = ((name, each.fill(facts, as_text)) for name, each in self.headers)
        headers: tuple[Header, ...] = tuple((name, value) for name, value in filled if value)
        return replace(self.instance, overrides=overrides, headers=(*self.instance.headers, *headers))


@dataclass(frozen=True, slots=True)
class SrcRule:
    """What to do with calls of which `conditions` hold."""

    conditions: tuple[Condition, ...]
    decision: SrcDecision
    """For every such call, where there are no templates."""
    templates: tuple[Template, ...] = ()

    def decide(self, facts: CallFacts) -> SrcDecision:
        """For one call."""
        if not self.templates:
            return self.decision
        return replace(self.decision, instances=tuple(each.fill(facts) for each in self.templates))


@dataclass(frozen=True, slots=True)
class SrcRules:
    """Rules in order."""

    rules: tuple[SrcRule, ...]
    otherwise: SrcDecision

    def decide(self, facts: CallFacts) -> SrcDecision:
        """By the first rule that holds."""
        for rule in self.rules:
            if all(condition(facts) for condition in rule.conditions):
                return rule.decide(facts)
        return self.otherwise


def load_rules(settings: Mapping[str, Any], file: Path, src: SrcSettings) -> SrcRules:
    """The rules of the settings read from `file`; `src` is what holds where they say nothing."""
    policy = load_policy(settings, file)
    tables = settings.get("rule", [])
    rules = tuple(
        _rule(file, table, src, rule.conditions, rule.decision.action, rule.decision.rule)
        for table, rule in zip(tables, policy.rules, strict=True)
    )
    return SrcRules(rules, _otherwise(policy, src))


def check_rules(settings: Mapping[str, Any], file: Path) -> None:
    """Raise SettingsError where rules say something wrong of recording servers. No secret is read."""
    load_rules(settings, file, load_src(settings, file))


def _otherwise(policy: Policy, src: SrcSettings) -> SrcDecision:
    sends = src.default if src.default is not None else policy.otherwise.action is Action.RECORD
    terms = PauseTerms(preference=src.heed_preference)
    return SrcDecision(sends, (src.usual,) if sends else (), reason="no rule", pausing=terms)


def _rule(
    file: Path, table: dict[str, Any], src: SrcSettings, conditions: tuple[Condition, ...], action: Action, said: str
) -> SrcRule:
    with Place(file, said) as place:
        place.key = "siprec"
        sends = truth(table["siprec"]) if "siprec" in table else action is Action.RECORD
        place.key = next((key for key in SENDING if key != "siprec" and key in table), "")
        if not sends and place.key:
            raise ValueError("has no effect on calls that go to no server; leave it out")
        if not sends:
            return SrcRule(conditions, SrcDecision(False, reason=said))
        terms = _terms(place, table, src)
        templates = _templates(place, table, src, said)
        decision = SrcDecision(True, tuple(each.instance for each in templates), reason=said, pausing=terms)
        if all(each.fixed for each in templates):
            nobody = CallFacts()
            return SrcRule(conditions, replace(decision, instances=tuple(each.fill(nobody) for each in templates)))
        return SrcRule(conditions, decision, templates)


def _templates(place: Place, table: dict[str, Any], src: SrcSettings, said: str) -> tuple[Template, ...]:
    """The instances of a rule, each of which may say otherwise what the rule says."""
    own = {key: table[key] for key in _OF_INSTANCE if key in table and key != "name"}
    usual = Template(replace(src.usual, name=said) if own else src.usual)
    first = _template(place, own, src, usual)
    if "instances" not in table:
        return (first,)
    place.key = "instances"
    listed = table["instances"]
    if not isinstance(listed, list) or not 0 < len(listed) <= MOST_INSTANCES:
        raise ValueError(f'must be 1 to {MOST_INSTANCES} tables: instances = [{{ name = "a", srs = "sip:rec1" }}]')
    found: list[Template] = []
    for number, each in enumerate(listed, 1):
        with Place(place.path, f"{place.where}: instance {number}") as within:
            told = known(each, _OF_INSTANCE)
            within.key = "name"
            name = text(told.get("name"))
            if any(other.instance.name == name for other in found):
                raise ValueError(f"{name!r} has been given to another instance")
            found.append(_template(within, told, src, replace(first, instance=replace(first.instance, name=name))))
    return tuple(found)


def _template(place: Place, table: Mapping[str, Any], src: SrcSettings, usual: Template) -> Template:
    instance = usual.instance
    if "srs" in table:
        place.key = "srs"
        instance = replace(instance, servers=src.servers.find(table["srs"]))
    if "media" in table:
        place.key = "media"
        way = protection(table["media"])
        instance = replace(instance, servers=tuple(replace(each, protection=way) for each in instance.servers))
    instance = instance_of(place, table, instance, src.sockets)
    said = {_FIELDS.get(key, key): _words(place, key, table[key]) for key in _WORDS if key in table}
    for key in _PARTIES:
        place.key = key
        for name, value in known(table.get(key, {}), ("name", "aor")).items():
            said[f"{key.removesuffix('_as')}_{name}"] = _words(place, key, value)
    headers = usual.headers
    if "add_headers" in table:
        place.key = "add_headers"
        headers = _headers(table["add_headers"])
    return Template(instance, {**usual.said, **said}, headers)


def _words(place: Place, key: str, value: object) -> Words:
    place.key = key
    written = text(value)
    if key in ("from", "to") and "<" not in written:
        written = f"<{written}>"
    found = words(written)
    sample = "".join(part if place_ % 2 == 0 else "x" for place_, part in enumerate(found.parts))
    if key.endswith("_extension"):
        why = why_no_extension(sample)
        if why:
            raise ValueError(f"cannot stand in the metadata: {why}")
        return found
    if not sample.isprintable():
        raise ValueError("has line breaks or other characters that cannot be shown")
    if key in ("from", "to"):
        name_addr(sample)
    return found


def _headers(value: object) -> tuple[tuple[str, Words], ...]:
    table = known(value, value if isinstance(value, dict) else ())
    for name, said in table.items():
        if not _TOKEN.fullmatch(name) or name.lower() in _OURS:
            raise ValueError(f"{name!r} is no header field that may be added; choose one such as X-Tenant")
        if not text(said).isprintable():
            raise ValueError(f"{name}: has line breaks or other characters that cannot be shown")
    return tuple((name, words(said)) for name, said in table.items())


def _terms(place: Place, table: Mapping[str, Any], src: SrcSettings) -> PauseTerms:
    codes = []
    for key in PAUSING[:2]:
        place.key = key
        code = text(table[key]).upper() if key in table else ""
        if code and not _CODE.fullmatch(code):
            raise ValueError(f"{code!r} is no code; write up to 16 of {DIGITS}")
        codes.append(code)
    place.key = "pause_by"
    by = table.get("pause_by", "either")
    if by not in (*Side, "either"):
        raise ValueError(f"{by!r} is none of caller, callee, either")
    if not codes[0] and (codes[1] or "pause_by" in table):
        raise ValueError("says nothing without pause_digits")
    sides = frozenset(Side) if by == "either" else frozenset({Side(by)})
    return PauseTerms(codes[0], codes[1], sides, src.heed_preference)


def group_of(name: str) -> UUID:
    """A group by its UUID, or by a name, which becomes the same UUID wherever it is said."""
    try:
        return UUID(name)
    except ValueError:
        return uuid5(_GROUPS, name)


_FIELDS = {"from": "from_"}
_ESCAPES = {"group_extension": in_xml, "session_extension": in_xml, "from_": in_uri, "to": in_uri}
