"""The torture messages of RFC 4475: all of them where the standard's archive is at hand, and cases of our own of each
kind always."""

import csv
import os
from pathlib import Path

import pytest

from decoders.demux import SIP, SIP_IGNORED
from decoders.sip import parse_message
from decoders.sip_checks import examine
from decoders.sipstream import SipStream
from tests.naive_demux import classify_payload


@pytest.fixture(scope="module")
def torture():
    """Name -> octets of every message of the archive, and name -> class of its index."""
    default = Path(__file__).resolve().parents[3] / "shared" / "standards"
    directory = Path(os.environ.get("SPANREC_STANDARDS", default)) / "rfc4475"
    if not (directory / "raw").is_dir():
        pytest.skip("the messages of RFC 4475 are not here (set SPANREC_STANDARDS)")
    messages = {path.stem: path.read_bytes() for path in sorted((directory / "raw").glob("*.dat"))}
    with (directory / "index.csv").open(encoding="utf-8") as index:
        classes = {Path(row["file"]).stem: row["class"] for row in csv.DictReader(index)}
    return messages, classes


NO_SIP = {"bigcode", "test"}
"""A status code of ten digits; a request line without a version."""
ODD_BUT_VALID = {"dblreq": ("octets after the body",), "intmeth": ("NUL in the header",)}


def test_every_message_is_read_or_is_no_sip(torture):
    messages, _ = torture
    assert len(messages) == 50
    assert {name for name, data in messages.items() if parse_message(data) is None} == NO_SIP


def test_valid_messages_are_sound_and_invalid_ones_are_not(torture):
    messages, classes = torture
    for name, data in messages.items():
        message = parse_message(data)
        if message is None:
            continue
        found = examine(message)
        if classes[name] == "valid":
            assert found == ODD_BUT_VALID.get(name, ()), name
        if classes[name] == "invalid":
            assert found, name


def test_what_identifies_a_dialog_is_read_from_every_message(torture):
    messages, _ = torture
    for name, data in messages.items():
        message = parse_message(data)
        if message is None or name == "insuf":
            continue
        assert message.call_id, name
        assert message.from_.uri, name
        assert message.to.uri, name
        assert (message.cseq is None) == (name in ("scalar02", "scalarlg")), name
        message.vias, message.contacts, message.parts(), message.sdp()


def test_folded_and_escaped_values_are_exact(torture):
    messages, _ = torture
    message = parse_message(messages["wsinv"])
    assert message.from_.display_name == 'J Rosenberg \\"'
    assert (message.from_.tag, message.to.tag, message.cseq) == ("98asjd8", "1918181833n", (9, "INVITE"))
    assert [(via.transport, via.branch) for via in message.vias] == [
        ("UDP", "390skdjuw"),
        ("TCP", "z9hG4bK9ikj8"),
        ("UDP", "z9hG4bK30239"),
    ]
    assert message.contact.display_name == 'Quoted string ""'
    assert dict(message.contact.params) == {"newparam": "newvalue", "secondparam": None, "q": "0.33"}
    assert [media.port for media in message.sdp().media] == [49217, 3227]
    assert parse_message(messages["esc01"]).to.uri == "sip:%75se%72@example.com"
    assert [contact.uri for contact in parse_message(messages["escnull"]).contacts] == [
        "sip:%00@host5.example.com",
        "sip:%00%00@host5.example.com",
    ]
    assert len(parse_message(messages["mpart01"]).parts()) == 2


def test_demultiplexing_takes_every_message_for_sip(torture):
    messages, _ = torture
    assert {name for name, data in messages.items() if classify_payload(data) not in (SIP, SIP_IGNORED)} == NO_SIP


def test_a_stream_of_the_valid_messages_is_cut_where_they_end(torture):
    messages, classes = torture
    # Over a stream Content-Length ends a message: dblreq is two there, and those without it do not count.
    names = [
        n for n, c in classes.items() if c == "valid" and n not in ("dblreq", "inv2543") and has_length(messages[n])
    ]
    stream, found = SipStream(), []
    for octet in b"".join(messages[name] for name in names):
        found += stream.feed(bytes([octet]))
    assert [parse_message(data).call_id for data in found] == [parse_message(messages[name]).call_id for name in names]


def has_length(data):
    return parse_message(data).get("content-length") is not None


CASES = {
    "folds and blanks": (b"INVITE sip:v@x SIP/2.0\r\nTO :\r\n sip:v@x ;  tag  = 19\r\ncseq: 0009\r\n  INVITE\r\n", ()),
    "odd method": (b"!x%*_+`'~ sip:a@b SIP/2.0\r\nCSeq: 1 !x%*_+`'~\r\n", ()),
    "no reason": (b"SIP/2.0 100 \r\nCSeq: 35 INVITE\r\n", ()),
    "utf-8 reason": ("SIP/2.0 200 \u0435\u0441\u0442\u044c\r\nCSeq: 1 INVITE\r\n".encode(), ()),
    "unbalanced quote": (b'INVITE sip:a@b SIP/2.0\r\nTo: "Mr. J <sip:j@b>\r\n', ("to is unsound",)),
    "number too large": (b"REGISTER sip:b SIP/2.0\r\nCSeq: 36893488147419103232 REGISTER\r\n", ("cseq is unsound",)),
    "wrong method": (b"OPTIONS sip:b SIP/2.0\r\nCSeq: 8 INVITE\r\n", ("cseq names INVITE, not OPTIONS",)),
    "hops": (b"OPTIONS sip:b SIP/2.0\r\nMax-Forwards: 300\r\n", ("max-forwards is no number up to 255",)),
    "repeated": (b"BYE sip:b SIP/2.0\r\nTo: sip:a@b\r\nTo: sip:a@b\r\n", ("to is repeated",)),
    "header fields in the URI": (b"BYE sip:b@c?Route=x SIP/2.0\r\n", ("request URI with header fields",)),
    "date": (b"BYE sip:b SIP/2.0\r\nDate: Fri, 01 Jan 2010 16:00:00 EST\r\n", ("date is not in GMT",)),
    "contact": (b"REGISTER sip:b SIP/2.0\r\nContact: sip:a@b?Route=x\r\n", ("contact is unsound",)),
    "empty values": (b"INVITE sip:b SIP/2.0\r\nContact: <sip:a@b>,,\r\n", ("contact has empty values",)),
    "name without quotes": (b"INVITE sip:b SIP/2.0\r\nFrom: Bell, A <sip:a@b>\r\n", ("from is unsound",)),
    "no address": (b"INVITE sip:b SIP/2.0\r\nFrom: <>\r\n", ("from has no address",)),
    "via": (b"INVITE sip:b SIP/2.0\r\nVia: SIP/2.0/UDP h;;,;\r\n", ("via is unsound",)),
}


@pytest.mark.parametrize("name", CASES)
def test_messages_of_each_kind_are_read_and_judged(name):
    data, expected = CASES[name]
    message = parse_message(data + b"\r\n")
    found = [sentence for sentence in examine(message) if not sentence.startswith("no ")]
    assert list(dict.fromkeys(found)) == list(expected)
