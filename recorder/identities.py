"""Who takes part in a call, by the headers that name them.

In: messages of a call. Out: `Party.identities`, distinct, in order of trust (RFC 3325, Remote-Party-ID, From and To,
Request-URI) and then of sighting, at most MAX_IDENTITIES a party. Withheld names stay as they were heard.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from decoders.sip import NameAddress, SipMessage
from decoders.sip_address import parse_name_address, parse_uri
from recorder.model import Call, Identity, IdentityOrigin, Party, Side

MAX_IDENTITIES = 16
MAX_URI = 512
MAX_NAME = 256
MAX_PARAMS = 32
_FEATURES = (
    "audio automata class duplex data control mobility description events priority methods schemes application video "
    "language type isfocus actor text extensions"
)
_BASE_FEATURES = frozenset(_FEATURES.split())
"""Feature tags that RFC 3840, section 5, writes without a plus sign."""
_BARE_CONTACT = re.compile('[^<>,"]*<[^<>,"]*>').fullmatch
"""A Contact without parameters, as most are."""
_OPAQUE = ("anonymous", "unavailable", "unknown", "restricted")


class Address(NamedTuple):
    """What makes two URIs the same address of record: no port, no parameters, no case in the host."""

    user: str
    host: str


def address_of(uri: str) -> Address:
    """Comparable form of a sip, sips or tel URI. Telephone numbers lose their visual separators (RFC 3966)."""
    parts = parse_uri(uri)
    user = parts.user.partition(";")[0]
    if parts.scheme == "tel" or user[:1] == "+":
        user = "".join(character for character in user if character not in "-.() ")
    return Address(user, parts.host)


def anonymous(address: Address) -> bool:
    """Whether an address names nobody (RFC 3323, section 4.1; RFC 3325)."""
    return not address.user or address.user.lower() in _OPAQUE or address.host.endswith(".invalid")


def learn_initial(call: Call, message: SipMessage) -> None:
    """Identities in an initial INVITE: the caller's, and whom it calls."""
    caller, callee, from_, to = call.caller, call.callee, message.from_, message.to
    learn_sender(caller, message)
    if from_ is not None:
        _add_address(caller, from_, IdentityOrigin.ADDRESS)
    if to is not None and not _names_nobody(to.uri):
        _add_address(callee, to, IdentityOrigin.ADDRESS)
    elif message.request_uri:
        _add(callee, message.request_uri, None, IdentityOrigin.REQUEST_URI)
    headers = message.headers
    if "remote-party-id" in headers:
        for address in _remote_parties(message, "called"):
            _add_address(callee, address, IdentityOrigin.REMOTE_PARTY)
    if "diversion" in headers:
        for address in message.diversion:
            _add_address(callee, address, IdentityOrigin.DIVERSION)


def learn_dialog(call: Call, message: SipMessage, requester: Side) -> None:
    """From and To of a message inside a dialog whose INVITE was not seen."""
    from_, to = message.from_, message.to
    if from_ is not None:
        _add_address(call.party(requester), from_, IdentityOrigin.ADDRESS)
    if to is not None:
        _add_address(call.party(requester.other), to, IdentityOrigin.ADDRESS)


def learn_sender(party: Party, message: SipMessage) -> None:
    """What a message asserts about its own sender: P-Asserted-Identity and Remote-Party-ID."""
    headers = message.headers
    if "p-asserted-identity" in headers:
        for address in message.asserted_identities:
            _add_address(party, address, IdentityOrigin.ASSERTED)
    if "remote-party-id" in headers:
        for address in _remote_parties(message, "calling" if message.method else "called"):
            _add_address(party, address, IdentityOrigin.REMOTE_PARTY)


def learn_contact(party: Party, message: SipMessage) -> None:
    """Capabilities in the sender's Contact (RFC 3840): the first that has any stay."""
    values = message.headers.get("contact")
    if values is None or party.contact_params or _BARE_CONTACT(values[0]):
        return
    contact = message.contact
    if contact is None:
        return
    found = [
        (name, value or "") for name, value in contact.params.items() if name.startswith("+") or name in _BASE_FEATURES
    ]
    party.contact_params = tuple(found[:MAX_PARAMS])


def addresses_of(party: Party) -> Iterable[Address]:
    """Comparable forms of the party's own identities that name somebody, in order of trust."""
    for identity in party.identities:
        if identity.origin is not IdentityOrigin.DIVERSION:
            address = address_of(identity.uri)
            if not anonymous(address):
                yield address


def _remote_parties(message: SipMessage, party: str) -> list[NameAddress]:
    """Remote-Party-ID values about `party` (calling, called); one that does not say so is about the sender."""
    sender = "calling" if message.method else "called"
    found = []
    for value in message.getlist("remote-party-id"):
        address = parse_name_address(value)
        if address and (address.params.get("party") or sender).lower() == party:
            found.append(address)
    return found


def _names_nobody(uri: str) -> bool:
    if "@" in uri:
        return False
    parts = parse_uri(uri)
    return not parts.user and not parts.host


def _add_address(party: Party, address: NameAddress, origin: IdentityOrigin) -> None:
    _add(party, address.uri, address.display_name, origin)


def _add(party: Party, uri: str, name: str | None, origin: IdentityOrigin) -> None:
    uri, name = uri[:MAX_URI], name[:MAX_NAME] if name else None
    identities = party.identities
    position = len(identities)
    for index, known in enumerate(identities):
        if known.uri == uri and known.name == name and known.origin is origin:
            return
        if known.origin > origin:
            position = min(position, index)
    if len(identities) >= MAX_IDENTITIES:
        return
    identities.insert(position, Identity(uri, name, origin))
