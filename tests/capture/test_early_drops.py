"""Frames that are lost before any socket are counted, from the counters of card and kernel."""

import pytest

from capture.early_drops import SOFTNET, EarlyDrops


class Machine:
    """Counters as the kernel shows them, in files of our own."""

    def __init__(self, root):
        self.softnet, self.network = root / "softnet_stat", root / "net"
        self.queue(0, 0)
        self.card("eth1", 0, 0)

    def queue(self, *dropped):
        rest = " ".join(["00000000"] * 12)
        self.softnet.write_text("".join(f"0b8bce95 {each:08x} {rest}\n" for each in dropped))

    def card(self, name, missed, fifo):
        place = self.network / name / "statistics"
        place.mkdir(parents=True, exist_ok=True)
        (place / "rx_missed_errors").write_text(f"{missed}\n")
        (place / "rx_fifo_errors").write_text(f"{fifo}\n")

    def drops(self, *names):
        return EarlyDrops(names, self.softnet, self.network)


@pytest.fixture
def kernel(tmp_path):
    return Machine(tmp_path)


def test_what_was_lost_before_the_recorder_began_does_not_count(kernel):
    kernel.queue(0xADE, 0x35B)
    kernel.card("eth1", 100, 0)
    drops = kernel.drops("eth1")
    assert (drops.count(), drops.notes) == (0, [])
    drops.close()


def test_growth_is_counted_over_all_processors_and_interfaces_and_says_what_to_do(kernel):
    kernel.card("eth2", 0, 0)
    drops = kernel.drops("eth1", "eth2")
    kernel.queue(0x10, 0x0A)
    kernel.card("eth2", 7, 0)
    assert drops.count() == 16 + 10 + 7
    assert (drops.in_queue, drops.in_card) == (26, 7)
    assert drops.count() == 0
    kernel.queue(0x11, 0x0A)
    assert drops.count() == 1
    said = " ".join(drops.notes)
    assert "7 frames" in said
    assert "27 frames" in said
    assert "net.core.netdev_max_backlog" in said
    assert "ethtool -G" in said
    drops.close()


def test_a_driver_that_counts_a_loss_twice_loses_it_once(kernel):
    drops = kernel.drops("eth1")
    kernel.card("eth1", 5, 5)
    assert drops.count() == 5
    drops.close()


def test_an_interface_that_was_made_anew_counts_from_nought(kernel):
    drops = kernel.drops("eth1")
    kernel.card("eth1", 50, 0)
    assert drops.count() == 50
    kernel.card("eth1", 3, 0)
    drops.reopen("eth1")
    assert drops.count() == 3
    drops.close()


@pytest.mark.parametrize("content", ["", "zz yy\n", "\xff\xfe"])
def test_what_cannot_be_read_adds_nothing(kernel, content):
    drops = kernel.drops("eth1", "absent", "any")
    kernel.softnet.write_text(content)
    (kernel.network / "eth1" / "statistics" / "rx_missed_errors").write_text(content)
    assert drops.count() == 0
    drops.close()
    assert drops.count() == 0


def test_this_kernel_has_such_a_counter():
    if not SOFTNET.exists():
        pytest.skip("no /proc/net/softnet_stat here")
    drops = EarlyDrops(["lo"])
    assert drops.count() >= 0
    drops.close()
