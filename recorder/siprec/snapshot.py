"""Metadata of calls in progress, for a recording server: complete and partial snapshots (RFC 7865; RFC 7866, 9).

In: calls as a recording session has them (`Told`). Out: `Elements`, what is to be said of them now, and documents: all
of it, or what differs from what the server knows. Identifiers are those of the call's own documents (`metadata_ids`):
the same at every server and after every failure. What is said are facts of the call; that the recording itself pauses
is for the session description to say. Well-formed whatever the wire brought.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from lxml import etree

from recorder import metadata_extension as extension
from recorder.document import format_time
from recorder.metadata import NAMESPACE, time_lines
from recorder.metadata_ids import Identifiers, group_uuid, id_text
from recorder.metadata_text import ANONYMOUS, aor_uri, xml_text
from recorder.model import CallState, Side
from recorder.siprec.picture import CallPicture, PartyPicture, Phase
from recorder.siprec.src_decision import Overrides
from recorder.xml_element import DECLARATION, leaf, nested

_GROUP, _SESSION, _PARTICIPANT, _STREAM, _RECORDING, _MEMBER, _MEDIA, _OWN = range(8)
"""Kinds of elements, in the order of the schema."""
_SHORT = range(-0x8000, 0x8000)
"""xs:short, the type of a reason's cause."""
_END_UNSEEN = (CallState.ACTIVE, CallState.INCOMPLETE, CallState.MEDIA_ONLY)
_MOST_EXTENSION = 65536


@dataclass(frozen=True, slots=True)
class ToldStream:
    """A stream of a call."""

    side: Side
    """Whose voice it is."""
    media_index: int
    label: str | None
    """Of its media description; None: it has none that is in use."""
    sending: bool
    """By the call's own descriptions."""


@dataclass(frozen=True, slots=True)
class Told:
    """A call as a recording session has it."""

    picture: CallPicture
    streams: tuple[ToldStream, ...]
    since: int
    """When this session began to record it, ns UTC."""
    until: int | None = None
    """When it ceased to."""
    overrides: Overrides = field(default_factory=Overrides)
    late: bool = False
    """It is a call of the past, kept while no server could be had."""


class Element(NamedTuple):
    """One element, as written."""

    text: str
    begin: int | None = None
    """Associate-time, of what can come to an end without its call."""


Key = tuple[int, str, str]
"""Kind, identifier, and a second identifier where the element ties two."""
Elements = dict[Key, Element]


class Partial(NamedTuple):
    """What has changed."""

    data: bytes
    labels: bool
    """It names media descriptions, so that they must stand beside it (RFC 7866, section 9.1)."""


def elements_of(calls: Iterable[Told]) -> Elements:
    """All that is to be said of calls now."""
    found: Elements = {}
    for told in sorted(calls, key=lambda each: each.picture.started):
        for key, element in _elements(told):
            found.setdefault(key, element)
    return found


def complete(elements: Mapping[Key, Element]) -> bytes:
    """A complete snapshot; of no call at all it is empty, and valid."""
    return _document("complete", elements)


def differs(before: Mapping[Key, Element], now: Mapping[Key, Element]) -> bool:
    """Whether `partial` has anything to say; asked much more often than it has."""
    if before is now:
        return False
    return any(before.get(key) != element for key, element in now.items()) or any(
        key[0] in (_MEMBER, _MEDIA) and key not in now for key in before
    )


def partial(before: Mapping[Key, Element], now: Mapping[Key, Element], at: int) -> Partial | None:
    """What differs from what the server knows, None where nothing does. Whoever is there no more left `at`."""
    changed: Elements = {key: element for key, element in now.items() if before.get(key) != element}
    for key, element in before.items():
        if key not in now and key[0] in (_MEMBER, _MEDIA):
            changed[key] = _over(key, element, at)
    if not changed:
        return None
    labels = any(key[0] == _STREAM and "<label>" in element.text for key, element in changed.items())
    return Partial(_document("partial", changed), labels)


def why_no_extension(text: str) -> str:
    """Why `text` cannot stand in a document as elements of a namespace of its own, a phrase; empty where it can."""
    if len(text) > _MOST_EXTENSION:
        return f"longer than {_MOST_EXTENSION} characters"
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    try:
        root = etree.fromstring(f'<recording xmlns="{NAMESPACE}">{text}</recording>'.encode(), parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        return f"not well-formed XML: {str(error).splitlines()[0][:120]}"
    if (root.text or "").strip() or any((child.tail or "").strip() for child in root):
        return "text that is in no element"
    for child in root:
        if not isinstance(child.tag, str):
            return "a comment or processing instruction, which says nothing"
        if etree.QName(child).namespace == NAMESPACE:
            return f'<{etree.QName(child).localname}> has no namespace of its own: write xmlns="…" in it'
        if etree.QName(child).namespace is None:
            return f"<{etree.QName(child).localname}> is in no namespace"
    return ""


def _document(mode: str, elements: Mapping[Key, Element]) -> bytes:
    lines = [
        f'{DECLARATION}<recording xmlns="{NAMESPACE}" xmlns:{extension.PREFIX}="{extension.NAMESPACE}">\n',
        f"  <datamode>{mode}</datamode>\n",
        *(elements[key].text for key in sorted(elements, key=lambda key: key[0])),
        "</recording>\n",
    ]
    return "".join(lines).encode()


def _elements(told: Told) -> Iterable[tuple[Key, Element]]:
    picture, ids = told.picture, Identifiers(told.picture.id)
    streams = [(stream_id(ids, stream), stream) for stream in told.streams]
    session = id_text(ids.session)
    group = id_text(told.overrides.group or group_uuid(picture.group))
    yield (_GROUP, group, ""), Element(_group(told, group))
    yield (_SESSION, session, ""), Element(_session(told, session, group))
    for party in picture.parties:
        identifier = id_text(party.participant_id)
        yield (_PARTICIPANT, identifier, ""), Element(_participant(told, party, identifier))
    for identifier, stream in streams:
        yield (_STREAM, identifier, ""), Element(_stream(stream, identifier, session))
    recorded = time_lines(told.since, told.until)
    text = f'  <sessionrecordingassoc session_id="{session}">\n{recorded}  </sessionrecordingassoc>\n'
    yield (_RECORDING, session, ""), Element(text)
    for party in picture.parties:
        identifier = id_text(party.participant_id)
        begin, left = _joined(picture, party), party.left if party.left is not None else _stop(picture)
        yield (_MEMBER, identifier, session), Element(_member(identifier, session, begin, left, party.params), begin)
    if told.streams:
        for party in picture.parties:
            identifier = id_text(party.participant_id)
            begin = max(_joined(picture, party), told.since)
            yield (_MEDIA, identifier, ""), Element(_media(streams, party, identifier, begin), begin)
    if told.late:
        yield (
            (_OWN, "delivery", session),
            Element(leaf("  ", "sr:delivery", {"session": str(picture.id), "late": "true"})),
        )


def stream_id(ids: Identifiers, stream: ToldStream) -> str:
    """Of a direction of a call: it does not change with the place that its session has for it."""
    return id_text(ids.stream(str(2 * stream.media_index + (1 if stream.side is Side.CALLER else 2))))


def _stop(picture: CallPicture) -> int | None:
    return None if picture.phase is not Phase.OVER or picture.state in _END_UNSEEN else picture.ended


def _joined(picture: CallPicture, party: PartyPicture) -> int:
    answered = picture.answered if party.side is Side.CALLEE else None
    return next((time for time in (party.joined, answered) if time is not None), picture.started)


def _group(told: Told, group: str) -> str:
    """RFC 7865, section 6.2. When a group of several calls ends is not one call's to tell."""
    picture = told.picture
    first = nested("    ", "sr:conversation", {"first-call": str(picture.group)}, "")
    return (
        f'  <group group_id="{group}">\n{time_lines(picture.started, None)}{first}'
        f"{_own(told.overrides.group_extension)}  </group>\n"
    )


def _session(told: Told, session: str, group: str) -> str:
    """RFC 7865, section 6.3."""
    picture = told.picture
    known = [leaf("    ", "sipSessionID", {}, each) for each in dict.fromkeys(picture.session_ids)]
    for protocol, cause, text in picture.reasons:
        if cause in _SHORT:
            known.append(leaf("    ", "reason", {"cause": cause, "protocol": protocol}, text or None))
    start = None if picture.state is CallState.MEDIA_ONLY else picture.started
    return (
        f'  <session session_id="{session}">\n{"".join(known)}    <group-ref>{group}</group-ref>\n'
        f"{time_lines(start, _stop(picture), 'start-time', 'stop-time')}{_call_facts(picture)}"
        f"{_own(told.overrides.session_extension)}  </session>\n"
    )


def _call_facts(picture: CallPicture) -> str:
    """What our own server wants to know beyond the standard, as far as it is known: see `metadata_extension`."""
    seen = [picture.started, picture.answered, picture.ended, *(party.joined for party in picture.parties)]
    attributes = {
        "state": picture.state,
        "started": format_time(picture.started),
        "answered": None if picture.answered is None else format_time(picture.answered),
        "ended": None if picture.ended is None else format_time(picture.ended),
        "last-seen": format_time(max(time for time in seen if time is not None)),
    }
    told = [] if picture.call_id is None else [leaf("      ", "sr:call-id", {}, picture.call_id)]
    told += [
        leaf("      ", "sr:reason", {"protocol": protocol, "cause": cause}, text)
        for protocol, cause, text in picture.reasons
    ]
    return nested("    ", "sr:call", attributes, "".join(told))


def _participant(told: Told, party: PartyPicture, identifier: str) -> str:
    """RFC 7865, section 6.5."""
    names = [
        nested("    ", "nameID", {"aor": aor}, leaf("      ", "name", {}, name) if name else "")
        for aor, name in names_of(told.overrides, party)
    ]
    address = None if party.address is None else str(party.address)
    facts = leaf("    ", "sr:party", {"role": party.side, "address": address})
    return f'  <participant participant_id="{identifier}">\n{"".join(names)}{facts}  </participant>\n'


def names_of(overrides: Overrides, party: PartyPicture) -> list[tuple[str, str | None]]:
    """(AoR, name) of a participant; an address that is given stands alone, a name takes the place of all."""
    caller = party.side is Side.CALLER
    aor = overrides.caller_aor if caller else overrides.callee_aor
    name = overrides.caller_name if caller else overrides.callee_name
    heard = list(party.names) or [(ANONYMOUS, None)]
    if aor:
        return [(aor_uri(aor), xml_text(name) if name else heard[0][1])]
    return [(each, xml_text(name)) for each in dict.fromkeys(each for each, _ in heard)] if name else heard


def _stream(stream: ToldStream, identifier: str, session: str) -> str:
    """RFC 7865, section 6.7."""
    start = f'  <stream stream_id="{identifier}" session_id="{session}"'
    return f"{start}/>\n" if stream.label is None else f"{start}>\n    <label>{stream.label}</label>\n  </stream>\n"


def _member(
    identifier: str, session: str, begin: int | None, end: int | None, params: Iterable[tuple[str, str]]
) -> str:
    """RFC 7865, section 6.6."""
    capabilities = "".join(leaf("    ", "param", {"pname": name, "pval": value}) for name, value in params)
    return (
        f'  <participantsessionassoc participant_id="{identifier}" session_id="{session}">\n'
        f"{time_lines(begin, end)}{capabilities}  </participantsessionassoc>\n"
    )


def _media(streams: Iterable[tuple[str, ToldStream]], party: PartyPicture, identifier: str, begin: int) -> str:
    """RFC 7865, section 6.8: who is on hold does not send, who holds does not receive. Who has left does neither."""
    if party.left is not None:
        return _stream_association(identifier, "", begin, party.left)
    lines = ""
    for name, own in (("send", True), ("recv", False)):
        for known, stream in streams:
            if stream.sending and (stream.side is party.side) is own:
                lines += f"    <{name}>{known}</{name}>\n"
    return _stream_association(identifier, lines, begin, None)


def _stream_association(identifier: str, lines: str, begin: int | None, end: int | None) -> str:
    return (
        f'  <participantstreamassoc participant_id="{identifier}">\n{lines}{time_lines(begin, end)}'
        "  </participantstreamassoc>\n"
    )


def _over(key: Key, element: Element, at: int) -> Element:
    """Somebody who is there no more."""
    if key[0] == _MEMBER:
        return Element(_member(key[1], key[2], element.begin, at, ()), element.begin)
    return Element(_stream_association(key[1], "", element.begin, at), element.begin)


def _own(text: str) -> str:
    return f"    {text.strip()}\n" if text.strip() else ""
