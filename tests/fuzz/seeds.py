"""What fuzzing starts from: the captures in pcaps/ and messages that the tests use.

In: nothing. Out: inputs for each target, the same ones in the same order everywhere.
"""

from functools import cache
from pathlib import Path

import numpy as np

from capture.batch import KIND_UDP
from capture.layers import decode_layers
from capture.source import CaptureSource
from decoders.demux import RTCP, RTP, SIP, classify
from tests.fuzz.frames import Frame

PCAPS = Path(__file__).resolve().parents[2] / "pcaps"
MULTIPART = (
    b"--b1\r\nContent-Type: application/sdp\r\nContent-Disposition: session;handling=required\r\n\r\nv=0\r\n"
    b"m=audio 1 RTP/AVP 0\r\n"
    b'--b1\r\nContent-Type: multipart/mixed; boundary="b 2"\r\n\r\n--b 2\r\nContent-Transfer-Encoding: '
    b"base64\r\n\r\nZm9v\r\n--b 2--\r\n"
    b"--b1\nContent-Type: application/rs-metadata+xml\nContent-Transfer-Encoding: quoted-printable\n\n<a "
    b'b=3D"c"/>\n--b1--\r\nrest'
)
ODD_SIP = (
    b"\r\n\r\nINVITE sip:user;par=u%40example.net@example.com:5061;maddr=1.2.3.4?X=y SIP/2.0\r\n"
    b"TO :\r\n sip:vivekg@chair-dnrc.example.com ;   tag    = 1918181833n\r\n"
    b'f   : "J Rosenberg \\\\\\""       <sip:jdrosen@example.com>\r\n  ;\r\n  tag = 98asjd8\r\n'
    b"MaX-fOrWaRdS: 0068\r\ni: wsinv.ndaksdj@192.0.2.1\r\nCSeq: 0009\r\n  INVITE\r\n"
    b"v:  SIP  / 2.0  / UDP\r\n    192.0.2.2;branch=390skdjuw, SIP/2.0/TCP spindle.example.com;branch=z9hG4bK9ikj8,\r\n"
    b" SIP  /    2.0   / UDP  [2001:db8::9]:5060 ; branch=z9hG4bK30239 ;rport=7;received=10.0.0.1\r\n"
    b'm:"Quoted string \\"\\"" <sip:jdrosen@example.com> ; newparam =\r\n      newvalue ;\r\n  secondparam ; q '
    b"= 0.33, *\r\n"
    b'P-Asserted-Identity: "A" <sip:a@b>, <tel:+491234>\r\nRemote-Party-ID: <sip:r@p>;party=calling;privacy=full\r\n'
    b"Diversion: <sip:d@e>;reason=unconditional\r\nReferred-By: <sip:x@y>\r\nSession-ID: ab30;remote=4775\r\n"
    b"Refer-To: <sip:c@d?Replaces=12345%40192.0.2.1%3Bto-tag%3D1%3Bfrom-tag%3D2>\r\nReplaces: a@b;to-tag=1;"
    b"from-tag=2;early-only\r\n"
    b'Reason: Q.850;cause=16;text="ok", SIP;cause=200\r\nRequire: siprec, 100rel\r\nSubject: \xc3\xa4 \xff \x00\r\n'
    b"c: multipart/mixed;boundary=b1\r\nl: 999\r\n\r\n" + MULTIPART
)
SDP = (
    b"v=0\r\no=- 1 2 IN IP4 192.0.2.1\r\ns=x\r\nc=IN IP4 192.0.2.1/127/3\r\nt=0 0\r\na=group:BUNDLE a b\r\n"
    b"a=ice-lite\r\n"
    b"m=audio 4000/2 RTP/SAVPF 0 8 9 18 101 111 13\r\nc=IN IP6 2001:db8::1\r\na=rtpmap:111 opus/48000/2\r\n"
    b"a=fmtp:111 useinbandfec=1;stereo=0\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\n"
    b"a=ptime:20\r\na=mid:a\r\n"
    b"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj|2^20|1:4 UNENCRYPTED_SRTP\r\n"
    b"a=candidate:1 1 UDP 2130706431 10.0.1.1 8998 typ host\r\na=rtcp:4001 IN IP4 192.0.2.9\r\na=rtcp-mux\r\n"
    b"a=sendonly\r\n"
    b"a=ssrc:12345 cname:x\r\na=label:7\r\na=setup:actpass\r\na=fingerprint:sha-256 AA:BB\r\nm=image 0 udptl "
    b"t38\r\na=inactive\r\n"
)
RS_METADATA = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<recording xmlns="urn:ietf:params:xml:ns:recording:1"><datamode>'
    b"complete</datamode>"
    b'<group group_id="Zw=="><associate-time>2026-03-01T09:15:02Z</associate-time></group><session session_id="cw==">'
    b'<sipSessionID>ab30;remote=4775</sipSessionID><reason cause="16" protocol="Q.850">bye</reason><group-ref>'
    b"Zw==</group-ref>"
    b'<start-time>2026-03-01T10:15:02.5+01:00</start-time><x:m xmlns:x="urn:x"><x:leaf>1</x:leaf></x:m></session>'
    b'<participant participant_id="cDE="><nameID aor="sip:alice@a"><name xml:lang="it">Alice &amp; &#228;'
    b"</name></nameID></participant>"
    b'<stream stream_id="dDE=" session_id="cw=="><label>1</label></stream><participantsessionassoc '
    b'participant_id="cDE="'
    b' session_id="cw=="/><participantstreamassoc participant_id="cDE="><send>dDE=</send><recv>dDI=</recv>'
    b"</participantstreamassoc></recording>"
)


@cache
def captured() -> dict[str, list[Frame]]:
    """Frames of every capture in pcaps/, by file name."""
    found = {}
    for path in sorted([*PCAPS.glob("*.pcap"), *PCAPS.glob("*.pcapng")]):
        frames = []
        last = None
        for batch in CaptureSource([path], hash_files=False):
            for row in range(len(batch)):
                time, at, size = int(batch.time[row]), int(batch.offset[row]), int(batch.captured[row])
                data = batch.buffer[at : at + size].tobytes()
                frames.append(Frame(int(batch.link_type[row]), 0, 0 if last is None else time - last, data))
                last = time
        found[path.name] = frames
    return found


def shortened(frames: list[Frame], media: int) -> list[Frame]:
    """A capture with its signalling, and of the media every packet of the first `media` and then now and then one."""
    kept, waited, seen = [], 0, 0
    for frame in frames:
        large = len(frame.data) > 110 and b"SIP/2.0" not in frame.data
        seen += large
        waited += frame.step
        if not large or seen <= media or seen % 40 == 0:
            kept.append(Frame(frame.link_type, frame.cut, waited, frame.data))
            waited = 0
    return kept


@cache
def payloads(kind: int) -> list[bytes]:
    """UDP payloads in pcaps/ of a kind of `decoders.demux`, a hundred of each capture at most."""
    from tests.fuzz.frames import batch_of

    found: list[bytes] = []
    for frames in captured().values():
        datagrams = decode_layers(batch_of(frames))
        kinds = classify(datagrams)
        rows = np.flatnonzero((kinds == kind) & (datagrams.kind == KIND_UDP))[:100]
        for row in rows.tolist():
            at, size = int(datagrams.payload[row]), int(datagrams.length[row])
            found.append(datagrams.packets.buffer[at : at + size].tobytes())
    return found


def sip_messages() -> list[bytes]:
    """Messages of real calls, and an odd one."""
    return [ODD_SIP, *payloads(SIP)]


def sdp_bodies() -> list[bytes]:
    """Session descriptions of real calls, and one with everything."""
    bodies = [message.partition(b"\r\n\r\n")[2] for message in payloads(SIP)]
    return [SDP, *(body for body in bodies if body.startswith(b"v=0"))]


def rtcp_packets() -> list[bytes]:
    """RTCP of real calls, and one packet of each kind."""
    made = [
        "80c80006 00000001 0000000200000003 00000004 00000005 00000006",
        "81c90007 00000001 00000002 ff000003 00000004 00000005 00000006 00000007",
        "81ca0005 00000001 010b 63616c6c65724061 6263 0000 00000000",
        "81cb0003 00000001 0762796520 627965 00000000",
        "80cc0003 00000001 54455354 00000005",
        "81cd0003 00000001 00000002 00010002",
        "80cf000b 00000001 07000008 00000002 0102030405060708 090a0b0c 0d0e0f10 11121314 15161718 191a1b1c 00000000",
    ]
    return [*(bytes.fromhex(each) for each in made), *payloads(RTCP)]


def rtp_payloads() -> list[bytes]:
    """Payloads of RTP of real calls: every codec's that pcaps/ has."""
    return [packet[12:] for packet in payloads(RTP)[::7]]
