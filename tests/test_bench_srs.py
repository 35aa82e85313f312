"""The load that the recording server is measured with is what it says."""

import socket
import struct
from contextlib import closing

import numpy as np

from bench.calls import expected_samples
from bench.rtp_sender import RtpSender
from bench.srs_src import RecordingClient
from decoders.sip import parse_message
from pcaps.make.sources import decode
from recorder.rs_metadata import parse_rs_metadata


def test_streams_are_the_speech_of_their_calls_packet_by_packet() -> None:
    receivers = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(4)]
    sender = RtpSender(4, 6)
    try:
        for stream, receiver in enumerate(receivers):
            receiver.bind(("127.0.0.1", 0))
            receiver.settimeout(2.0)
            sender.begin(stream, *receiver.getsockname())
        while (sender.sent < 6).any():
            sender.turn()
        for stream, receiver in enumerate(receivers):
            packets = [receiver.recvfrom(500) for _ in range(6)]
            assert {source for _, source in packets} == {sender.source(stream)}
            numbers = [struct.unpack_from("!HII", octets, 2) for octets, _ in packets]
            assert {ssrc for _, _, ssrc in numbers} == {int(sender.ssrc[stream])}
            assert np.diff([number for number, _, _ in numbers]).tolist() == [1] * 5 or stream < 2  # call 0 wraps
            heard = decode("PCMU", np.frombuffer(b"".join(octets[12:] for octets, _ in packets), np.uint8))
            assert (heard == expected_samples(stream // 2, ("caller", "callee")[stream % 2], 0.12)).all()
    finally:
        sender.close()
        for receiver in receivers:
            receiver.close()


def test_an_invite_offers_two_labelled_streams_and_says_who_speaks() -> None:
    sender = RtpSender(2, 1)
    with closing(sender), closing(RecordingClient(("127.0.0.1", 9), 1, sender, 1.0)) as client:
        message = parse_message(client.messages.invite(0))
    assert message is not None
    assert message.notes == ()
    assert message.requires("siprec")
    assert [part.content_type for part in message.parts()] == ["application/sdp", "application/rs-metadata+xml"]
    description = message.sdp()
    assert description is not None
    assert [media.label for media in description.media] == ["1", "2"]
    told = parse_rs_metadata(message.parts()[1].data)
    assert told.notes == []
    assert [aor for each in told.participants for aor in each.aors] == [
        "sip:+49300000000@one.example",
        "sip:+49890000000@two.example",
    ]
    one, two = (each.id for each in told.streams)
    assert [(each.send, each.recv) for each in told.participant_streams] == [([one], [two]), ([two], [one])]
