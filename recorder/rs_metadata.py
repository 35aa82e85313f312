"""Recording metadata of somebody else's SRC (RFC 7865, its drafts and what vendors make of them), read as it comes.

In: the bytes of an rs-metadata body, untrusted. Out: `RsMetadata`: what could be read, and notes on what was unsound.
Never raises, never resolves an entity, never touches a file or a network, never guesses what is missing.

Elements are known by their local name, in any namespace, with any prefix (even one that is not declared) and in any
order. Identifiers stay text: base64, hexadecimal, urn:uuid or anything else, and are compared as written.

Bounds: `MAX_SIZE` octets are parsed, `MAX_DEPTH` levels of extension data and `MAX_ELEMENTS`
elements read, `MAX_VALUES` addresses, names or stream references of one participant and
`rs_metadata_values.MAX_NOTES` notes kept.
"""

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, TypeVar

from lxml import etree

from recorder.rs_metadata_values import (
    DataMode,
    RsExtension,
    RsGroup,
    RsMetadata,
    RsParticipant,
    RsParticipantSession,
    RsParticipantStreams,
    RsSession,
    RsStream,
    parse_time,
)

__all__ = [
    "DataMode",
    "RsMetadata",
    "RsParticipant",
    "RsParticipantStreams",
    "RsSession",
    "RsStream",
    "parse_rs_metadata",
]

NAMESPACE = "urn:ietf:params:xml:ns:recording:1"
MAX_SIZE = 1 << 20
MAX_DEPTH = 32
MAX_ELEMENTS = 20_000
MAX_VALUES = 256
MAX_REMEMBERED = 128
"""Characters of a name that is remembered with what it is without its namespace."""


def parse_rs_metadata(data: bytes, charset: str | None = None) -> RsMetadata:
    """Read a document of any make.

    `charset` is that of the MIME part's Content-Type; it goes before the XML declaration's (RFC 7865, section 5.1).
    """
    found = RsMetadata()
    root = _root(found, data, charset)
    if root is not None:
        _Reader(found).read(root)
        _check(found)
    return found


_AMPERSAND = re.compile(rb"&(?!(?:[A-Za-z][A-Za-z0-9]{0,30}|#[0-9]{1,7}|#x[0-9A-Fa-f]{1,6});)")
_DECLARATION = re.compile(rb"\A<\?xml[^>]{0,200}\?>")


def _root(found: RsMetadata, data: bytes, charset: str | None) -> Any | None:
    if len(data) > MAX_SIZE:
        found.note(f"only the first {MAX_SIZE} of {len(data)} octets are read")
        data = data[:MAX_SIZE]
    text = data.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text:
        found.note("empty")
        return None
    if b"<!DOCTYPE" in text:
        found.note("document type declaration ignored")
    try:
        return etree.fromstring(text, _parser(charset))
    except (etree.XMLSyntaxError, ValueError, LookupError) as error:
        found.note(f"not well-formed: {_first_line(error)}")
    # A bare & is by far the most common fault; repaired, it costs nothing of what stands beside it.
    repaired = _AMPERSAND.sub(b"&amp;", _as_utf8(text))
    try:
        root = etree.fromstring(repaired, _parser("utf-8", recover=True))
    except (etree.XMLSyntaxError, ValueError, LookupError) as error:
        found.note(f"unreadable: {_first_line(error)}")
        return None
    if root is None:
        found.note("unreadable: no element")
    return root


@lru_cache(maxsize=8)
def _parser(charset: str | None, *, recover: bool = False) -> Any:
    """Made once for each character set: that takes as long as reading a small document."""
    return etree.XMLParser(
        encoding=charset,
        recover=recover,
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )


def _as_utf8(text: bytes) -> bytes:
    """Without its declaration, with octets that are no UTF-8 shown as U+FFFD."""
    return _DECLARATION.sub(b"", text).decode("utf-8", "replace").encode()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def _check(found: RsMetadata) -> None:
    """References and identifiers (RFC 7865, sections 5.1 and 6.10); a partial document may lean on earlier ones."""
    kinds: dict[str, str] = {}
    for kind, identifiers in (
        ("group", [group.id for group in found.groups]),
        ("session", [session.id for session in found.sessions]),
        ("participant", [participant.id for participant in found.participants]),
        ("stream", [stream.id for stream in found.streams]),
    ):
        for identifier in filter(None, identifiers):
            if kinds.setdefault(identifier, kind) != kind:
                found.note(f"one identifier for a {kinds[identifier]} and a {kind}: {identifier[:40]!r}")
    if found.datamode is DataMode.PARTIAL:
        return
    streams = {stream.id for stream in found.streams}
    for flows in found.participant_streams:
        for identifier in (*flows.send, *flows.recv):
            if identifier not in streams:
                found.note(f"no such stream: {identifier[:40]!r}")


def _local(element: Any) -> str:
    """Lower-case local name; a recovered document can have the undeclared prefix in it."""
    name = element.tag
    if not isinstance(name, str):
        return ""
    return _local_name(name) if len(name) <= MAX_REMEMBERED else _local_name.__wrapped__(name)


@lru_cache(maxsize=512)
def _local_name(name: str) -> str:
    return name.rpartition("}")[2].rpartition(":")[2].lower()


def _key(name: str) -> str:
    """Lower-case local name of an attribute."""
    return name.lower() if "}" not in name else name.rpartition("}")[2].lower()


def _attributes(element: Any) -> dict[str, str]:
    """By lower-case local name."""
    return {_key(key): value.strip() for key, value in element.attrib.items()}


def _text(element: Any) -> str:
    return (element.text or "").strip()


class _Reader:
    """Walks one document into an `RsMetadata`."""

    def __init__(self, found: RsMetadata) -> None:
        self.found = found
        self.left = MAX_ELEMENTS
        self.sessions: dict[str, RsSession] = {}
        self.participants: dict[str, RsParticipant] = {}
        self.streams: dict[str, RsStream] = {}
        self.participant_streams: dict[str, RsParticipantStreams] = {}

    def read(self, root: Any) -> None:
        name = _local(root)
        self.found.snapshot_request = name == "requestsnapshot"
        if name not in ("recording", "recording_metadata", "requestsnapshot"):
            self.found.note(f"root element {name[:40]!r}")
        namespace = root.tag.rpartition("}")[0].lstrip("{")
        if namespace != NAMESPACE:
            self.found.note(f"namespace {namespace[:80]}" if namespace else "no namespace")
        for child in self.children(root):
            self.element(child, "recording", None)

    def children(self, element: Any) -> Iterator[Any]:
        for child in element.iterchildren(tag=etree.Element):
            self.left -= 1
            if self.left < 0:
                self.found.note(f"more than {MAX_ELEMENTS} elements")
                return
            yield child

    def element(self, element: Any, owner: str, session: str | None) -> None:
        """One child of the root, or of a session where drafts nest participants and streams."""
        handler = _HANDLERS.get(_local(element))
        if handler is not None:
            handler(self, element, session)
        else:
            self.extension(element, owner)

    def extension(self, element: Any, owner: str, path: str = "", depth: int = 0) -> None:
        path = f"{path}/{_local(element)}" if path else _local(element)
        place = len(self.found.extension)
        leaf = True
        if depth < MAX_DEPTH:
            for child in self.children(element):
                leaf = False
                self.extension(child, owner, path, depth + 1)
        else:
            self.found.note(f"elements nested deeper than {MAX_DEPTH}")
        if leaf or element.attrib:
            namespace = element.tag.rpartition("}")[0].lstrip("{")
            said = RsExtension(owner, path, _text(element), _attributes(element), namespace)
            self.found.extension.insert(place, said)

    def identifier(self, element: Any, kind: str) -> str:
        """Identifier of an element: `kind_id` (RFC), `id` (drafts); empty where it has neither."""
        attributes = _attributes(element)
        identifier = attributes.get(f"{kind}_id") or attributes.get("id") or attributes.get(f"{kind}id") or ""
        if not identifier:
            self.found.note(f"{_local(element)} without an identifier")
        return identifier

    def reference(self, element: Any, kind: str) -> str | None:
        """Identifier of another element that this one names, in an attribute of any of the usual names."""
        usual = (f"{kind}_id", kind, f"{kind}id", f"{kind}-id", f"{kind}-ref")
        return next((value.strip() or None for key, value in element.attrib.items() if _key(key) in usual), None)

    def time(self, element: Any) -> int | None:
        time, note = parse_time(_text(element))
        if note:
            self.found.note(f"{_local(element)}: {note}")
        return time

    def flows(self, participant: str) -> RsParticipantStreams:
        return _named(participant, RsParticipantStreams, self.participant_streams, self.found.participant_streams)

    # The elements of RFC 7865, section 6.

    def read_datamode(self, element: Any, session: str | None) -> None:
        value = _text(element).lower()
        if value == DataMode.PARTIAL:
            self.found.datamode = DataMode.PARTIAL
        elif value != DataMode.COMPLETE:
            self.found.note(f"datamode {value[:40]!r}")

    def read_group(self, element: Any, session: str | None) -> None:
        identifier = self.identifier(element, "group")
        times = self.associations(element, f"group {identifier}")
        self.found.groups.append(RsGroup(identifier, *times))

    def associations(self, element: Any, owner: str) -> tuple[int | None, int | None]:
        """Associate and disassociate time of an element that holds nothing else."""
        associate = disassociate = None
        for child in self.children(element):
            match _time_name(child):
                case "associate":
                    associate = self.time(child)
                case "disassociate":
                    disassociate = self.time(child)
                case _:
                    self.extension(child, owner)
        return associate, disassociate

    def read_session(self, element: Any, session: str | None) -> None:
        found = _named(self.identifier(element, "session"), RsSession, self.sessions, self.found.sessions)
        found.group = self.reference(element, "group") or found.group
        for child in self.children(element):
            match _local(child):
                case "sipsessionid" | "sip-session-id" | "sip_session_id":
                    _keep(found.sip_session_ids, "".join(_text(child).split()))
                case "group-ref" | "group_ref" | "groupref" | "group":
                    found.group = _text(child) or self.reference(child, "group") or found.group
                case "reason":
                    cause = child.get("cause", "")
                    number = int(cause) if re.fullmatch(r"-?[0-9]{1,9}", cause, re.ASCII) else None
                    found.reasons.append((child.get("protocol", "SIP"), number, _text(child)))
                case _ if _time_name(child) == "start":
                    found.start = self.time(child)
                case _ if _time_name(child) == "stop":
                    found.stop = self.time(child)
                case _:
                    self.element(child, f"session {found.id}", found.id)

    def read_participant(self, element: Any, session: str | None) -> None:
        identifier = self.identifier(element, "participant")
        found = _named(identifier, RsParticipant, self.participants, self.found.participants)
        named = self.reference(element, "session") or session
        if named:
            self.found.participant_sessions.append(RsParticipantSession(identifier, named))
        flows = None
        for child in self.children(element):
            match _local(child):
                case "nameid":
                    self.read_name_id(found, child)
                case "aor":
                    _keep(found.aors, _text(child))
                case "name" | "displayname":
                    _keep(found.names, _text(child))
                case "send" | "recv" as direction:
                    flows = flows or self.flows(identifier)
                    _keep(flows.send if direction == "send" else flows.recv, _flow(child))
                case _:
                    self.extension(child, f"participant {found.id}")

    def read_name_id(self, found: RsParticipant, element: Any) -> None:
        aors = [value for key, value in element.attrib.items() if _key(key) in ("aor", "uri")]
        for aor in aors or [_text(element)]:
            _keep(found.aors, aor.strip())
        for child in self.children(element):
            match _local(child):
                case "name":
                    _keep(found.names, _text(child))
                case "aor":
                    _keep(found.aors, _text(child))
                case _:
                    self.extension(child, f"participant {found.id}")

    def read_stream(self, element: Any, session: str | None) -> None:
        identifier = self.identifier(element, "stream")
        found = _named(identifier, RsStream, self.streams, self.found.streams)
        found.session = self.reference(element, "session") or session or found.session
        for child in self.children(element):
            if _local(child) == "label":
                found.label = _text(child)
            else:
                self.extension(child, f"stream {identifier}")

    def read_session_recording(self, element: Any, session: str | None) -> None:
        identifier = self.reference(element, "session") or session or ""
        found = _named(identifier, RsSession, self.sessions, self.found.sessions)
        found.associate, found.disassociate = self.associations(element, f"session {found.id}")

    def read_participant_session(self, element: Any, session: str | None) -> None:
        identifier = self.identifier(element, "participant")
        named = self.reference(element, "session") or session or ""
        times = self.associations(element, f"participant {identifier}")
        self.found.participant_sessions.append(RsParticipantSession(identifier, named, *times))

    def read_participant_streams(self, element: Any, session: str | None) -> None:
        flows = self.flows(self.identifier(element, "participant"))
        for child in self.children(element):
            match _local(child):
                case "send" | "recv" as direction:
                    _keep(flows.send if direction == "send" else flows.recv, _flow(child))
                case _ if _time_name(child) == "associate":
                    flows.associate = self.time(child)
                case _ if _time_name(child) == "disassociate":
                    flows.disassociate = self.time(child)
                case _:
                    self.extension(child, f"participant {flows.participant}")


_HANDLERS = {
    "datamode": _Reader.read_datamode,
    "group": _Reader.read_group,
    "session": _Reader.read_session,
    "participant": _Reader.read_participant,
    "stream": _Reader.read_stream,
    "sessionrecordingassoc": _Reader.read_session_recording,
    "participantsessionassoc": _Reader.read_participant_session,
    "participantstreamassoc": _Reader.read_participant_streams,
}


Named = TypeVar("Named", RsSession, RsParticipant, RsStream, RsParticipantStreams)


def _named(identifier: str, kind: Callable[[str], Named], known: dict[str, Named], found: list[Named]) -> Named:
    """What has this identifier, made where it is new; of those without one, each is another."""
    if identifier and identifier in known:
        return known[identifier]
    known[identifier] = kind(identifier)
    found.append(known[identifier])
    return known[identifier]


def _keep(values: list[str], value: str) -> None:
    if value and value not in values and len(values) < MAX_VALUES:
        values.append(value)


def _flow(element: Any) -> str:
    """The stream that a send or recv names: its text, or an attribute in some drafts."""
    return _text(element) or element.get("stream_id", "").strip() or element.get("id", "").strip()


def _time_name(element: Any) -> str:
    """`start` of start-time, start_time, startTime..., empty where the element is no time."""
    name = _local(element).replace("-", "").replace("_", "")
    return name.removesuffix("time") if name.endswith("time") else ""
