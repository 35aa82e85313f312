"""The forwarder over loopback sockets: what a recording server gets of what was on the wire."""

from tests.forwarding import VOICE, Bench, talk


def test_media_goes_out_as_it_came_under_numbers_of_its_own():
    with Bench() as bench:
        server = bench.server()
        spoken = talk(50)
        bench.feed(spoken[:5])
        bench.place_all(VOICE)
        leg, local = bench.leg(server, VOICE)
        bench.feed(spoken[5:])
        bench.pass_time(200)
        got = server.got()
        assert [each.payload for each in got] == [each.payload for each in spoken]
        assert {each.ssrc for each in got} == {local.ssrc}
        first = got[0]
        assert [each.sequence for each in got] == [first.sequence + k for k in range(50)]
        assert [(each.stamp - first.stamp) % 2**32 for each in got] == [160 * k for k in range(50)]
        report = bench.forwarder.close(leg)
        assert (report.packets, report.octets, report.unsent) == (50, 50 * 160, 0)
