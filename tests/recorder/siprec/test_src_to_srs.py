"""Our client and our server together: what the server records is what a replay of the same capture makes."""

from tests.src_to_srs import PCAPS, through_sessions


def test_a_call_through_a_recording_session_is_the_call_of_the_capture(tmp_path):
    names = ("pcmu.pcap", "hold.pcap", "g722.pcapng", "srtp_sdes.pcap")
    found = through_sessions([PCAPS / name for name in names], tmp_path)
    assert [each.differences for each in found] == [()] * len(names)
    assert all(not each.samples.startswith("0 ") for each in found)
