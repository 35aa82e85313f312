"""What is unsound in a SIP message, beyond what keeps it from being read (RFC 3261, sections 8.1.1, 20 and 21.4.1).

In: a `SipMessage`. Out: sentences, none for a message in order. Only says what is wrong: a recorder follows calls by
what can be read of their messages all the same.
"""

from decoders.sip import SipMessage
from decoders.sip_address import parse_name_address, parse_via

_ONCE = ("call-id", "cseq", "from", "to", "max-forwards", "content-type")
_ADDRESSES = ("from", "to", "contact", "p-asserted-identity", "referred-by", "refer-to")
_NUMBERS = {"max-forwards": 255, "expires": 2**32 - 1, "min-expires": 2**32 - 1, "retry-after": 2**32 - 1}


def examine(message: SipMessage) -> tuple[str, ...]:
    """Everything unsound in `message`: its notes, and what its header fields get wrong."""
    found = [*message.notes, *_mandatory(message), *_sequence(message), *_routes(message)]
    for name in _ADDRESSES:
        found += _addresses(message, name)
    for name, limit in _NUMBERS.items():
        value = (message.get(name) or "0").split(";")[0].split("(")[0].strip()
        if not (value.isascii() and value.isdigit() and len(value) < 20 and int(value) <= limit):
            found.append(f"{name} is no number up to {limit}")
    date = message.get("date")
    if date and not date.endswith("GMT"):
        found.append("date is not in GMT")
    return tuple(found)


def _mandatory(message: SipMessage) -> list[str]:
    found = [f"no {name}" for name in ("call-id", "cseq", "from", "to", "via") if not message.get(name)]
    found += [f"{name} is repeated" for name in _ONCE if len(message.headers.get(name, ())) > 1]
    return found


def _sequence(message: SipMessage) -> list[str]:
    if not message.get("cseq"):
        return []
    sequence = message.cseq
    if sequence is None:
        return ["cseq is unsound"]
    if message.method is not None and sequence[1] != message.method:
        return [f"cseq names {sequence[1][:32]}, not {message.method[:32]}"]
    return []


def _routes(message: SipMessage) -> list[str]:
    found = []
    if "?" in (message.request_uri or "").rpartition("@")[2]:
        found.append("request URI with header fields")
    for value in message.getlist("via"):
        via = parse_via(value)
        if via is None or "" in (part.strip() for part in value.split(";")):
            found.append("via is unsound")
    return found


def _addresses(message: SipMessage, name: str) -> list[str]:
    for value in message.getlist(name):
        if value == "*":
            continue
        address = parse_name_address(value)
        if address is None:
            return [f"{name} has no address"]
        bare = "<" not in value
        unquoted = value.partition("<")[0].strip() if not value.lstrip().startswith('"') else ""
        if not address.sound or " " in address.uri or (bare and "?" in address.uri) or not _is_name(unquoted, bare):
            return [f"{name} is unsound"]
    for value in message.headers.get(name, ()):
        if name == "contact" and any(not item.strip() for item in value.split(",")):
            return [f"{name} has empty values"]
    return []


def _is_name(text: str, bare: bool) -> bool:
    """Whether text before a bracket is a display name without quotes: tokens and blanks."""
    return bare or all(character.isalnum() or character in " -.!%*_+`'~\t" for character in text)
