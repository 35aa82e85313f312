import pytest

from capture.errors import SpanrecError
from capture.port_pool import PortPool, PortsExhausted


def test_every_pair_is_an_even_port_and_the_odd_one_above_within_the_range() -> None:
    pool = PortPool(40001, 40008)
    assert sorted(pool.take() for _ in range(3)) == [40002, 40004, 40006]


def test_without_a_pair_left_an_error_says_so() -> None:
    pool = PortPool(40000, 40001)
    pool.take()
    with pytest.raises(PortsExhausted, match="all 1 pairs of the media ports 40000-40001"):
        pool.take()
    assert issubclass(PortsExhausted, SpanrecError)


def test_a_pair_rests_before_it_is_given_again() -> None:
    now = 100.0
    pool = PortPool(40000, 40001, rest=10.0, clock=lambda: now)
    pool.give_back(pool.take())
    now = 109.9
    assert len(pool) == 0
    now = 110.0
    assert pool.take() == 40000


def test_giving_back_twice_makes_no_second_pair() -> None:
    now = 0.0
    pool = PortPool(40000, 40001, rest=0.0, clock=lambda: now)
    port = pool.take()
    pool.give_back(port)
    pool.give_back(port)
    pool.give_back(40010)
    assert len(pool) == 1


def test_the_order_of_ports_cannot_be_foretold() -> None:
    orders = {tuple(pool.take() for _ in range(50)) for pool in (PortPool(40000, 40099) for _ in range(4))}
    assert len(orders) > 1


@pytest.mark.parametrize(("low", "high"), [(40001, 40002), (0, 100), (50000, 40000), (65535, 65535), (60000, 70000)])
def test_a_range_without_a_pair_is_refused(low: int, high: int) -> None:
    with pytest.raises(ValueError, match="hold no pair"):
        PortPool(low, high)


def test_ports_that_others_still_send_to_are_avoided_for_a_time() -> None:
    now = 0.0
    pool = PortPool(40000, 40007, clock=lambda: now)
    pool.avoid([40000, 40004, 50000], 60.0)
    assert len(pool) == 2
    assert {pool.take(), pool.take()} == {40002, 40006}
    now = 60.0
    assert {pool.take(), pool.take()} == {40000, 40004}


def test_ports_that_are_avoided_are_not_given_where_there_are_no_others() -> None:
    now = 0.0
    pool = PortPool(40000, 40003, clock=lambda: now)
    pool.avoid([40000], 60.0)
    assert pool.take() == 40002
    with pytest.raises(PortsExhausted, match=r"all 2 pairs .* but 1 to which others may still send"):
        pool.take()
    now = 60.0
    assert pool.take() == 40000
