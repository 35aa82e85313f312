"""Ports whose sender is not to be heard for a time."""

import socket
import struct
import time

from capture.media_ports import MediaPortOptions, MediaPorts
from recorder.siprec.media_reception import MediaReception


def packets(source, seconds=0.2):
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        batch = source.poll(0.02)
        count += 0 if batch is None else len(batch)
    return count


def test_a_muted_port_hands_on_nothing_and_still_knows_its_sender():
    options = MediaPortOptions(low=43000, high=43099, linger=0.0, rest=0.0, pace=0.002)
    source = MediaReception(MediaPorts(options))
    try:
        port = source.open("127.0.0.1")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:

            def send(first):
                for sequence in range(first, first + 5):
                    rtp = struct.pack("!BBHII", 0x80, 0, sequence, sequence * 160, 7) + bytes(160)
                    sender.sendto(rtp, ("127.0.0.1", port.rtp.port))

            send(1)
            assert packets(source) == 5
            source.mute(port, muted=True)
            send(6)
            assert packets(source) == 0
            assert source.state(port).packets == 10
            source.mute(port, muted=False)
            send(11)
            assert packets(source) == 5
    finally:
        source.close()
