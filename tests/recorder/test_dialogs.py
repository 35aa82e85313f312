"""Tags, hops and the way of an INVITE."""

from hypothesis import given
from hypothesis import strategies as st

from decoders.sip import parse_message
from recorder.dialogs import MAX_HOPS, DialogTags, Exchange, Hops, Path, read_exchange, top_branch
from recorder.model import Side, Sighting
from tests.playbook import node


def sighting(source: str, destination: str, realm: int = 0) -> Sighting:
    return Sighting(0, 1, 0, node(source), node(destination), realm=realm)


def exchange(from_key: str, to_tag: str | None, method: str = "BYE") -> Exchange:
    return Exchange(method, None, 1, from_key, to_tag)


def test_both_sides_are_known_by_their_tags_whoever_asks():
    tags = DialogTags()
    tags.learn(exchange("a", None, "INVITE"), Side.CALLER)
    tags.learn(exchange("a", "b", "INVITE"), Side.CALLER)
    assert tags.requester(exchange("b", "a")) is Side.CALLEE
    assert tags.requester(exchange("a", "b")) is Side.CALLER
    assert tags.requester(exchange("unheard", "a")) is Side.CALLEE
    assert tags.requester(exchange("unheard", "unheard-too")) is Side.CALLER


def test_a_dialog_ends_alone_where_another_was_answered_at_the_same_hop():
    tags = DialogTags()
    tags.confirm("b", 0)
    tags.confirm("c", 0)
    assert not tags.end("b", 0)
    assert tags.end("c", 0)


def test_tags_that_a_b2bua_gives_each_hop_end_each_for_itself():
    tags = DialogTags()
    tags.confirm("b", 0)
    tags.confirm("c", 1)
    assert tags.end("b", 0)


def test_hops_have_numbers_in_order_whichever_way_the_message_goes():
    hops = Hops()
    assert hops.known(sighting("alice", "proxy")) is None
    assert hops.enter(sighting("alice", "proxy")) == 0
    assert hops.enter(sighting("proxy", "bob")) == 1
    assert hops.known(sighting("proxy", "alice")) == 0
    assert hops.known(sighting("proxy", "alice", realm=9)) is None
    assert len(hops) == 2


def test_hops_are_bounded():
    hops = Hops()
    for port in range(3 * MAX_HOPS):
        seen = Sighting(0, 1, 0, node("alice")._replace(port=port), node("bob"))
        assert hops.enter(seen) < MAX_HOPS


CHAIN = [("alice", "proxy"), ("proxy", "edge"), ("edge", "bob")]


@given(st.permutations(range(3)))
def test_the_way_is_the_same_in_whatever_order_its_hops_are_seen(order):
    path = Path()
    for hop in order:
        path.forward(node(CHAIN[hop][0]), node(CHAIN[hop][1]), hop)
    assert (path.caller, path.callee, path.first_hop) == (node("alice"), node("bob"), 0)


def test_the_answered_branch_is_the_way():
    path = Path()
    path.forward(node("alice"), node("proxy"), 0)
    path.forward(node("proxy"), node("bob"), 1)
    path.forward(node("proxy"), node("carol"), 2)
    assert path.callee == node("carol")
    path.answer(1)
    assert path.callee == node("bob")


def test_programs_on_one_machine_are_told_apart_by_port():
    path = Path()
    phone, proxy, other = (node("alice")._replace(port=port) for port in (5061, 5060, 5062))
    path.forward(proxy, other, 1)
    path.forward(phone, proxy, 0)
    assert (path.caller, path.callee) == (phone, other)


def test_a_loop_has_an_end():
    path = Path()
    path.forward(node("alice"), node("proxy"), 0)
    path.forward(node("proxy"), node("alice"), 1)
    assert path.caller is not None


@given(
    st.sampled_from(['"A;tag=no" <sip:a@h>', "sip:a@h", "<sip:a@h;tag=uri>", '"x>y" <sip:a@h>', "A <sip:a@h>;x=1"]),
    st.sampled_from(["", ";tag=t1", ";TAG=t1", "; tag=t1", ";tag = t1", ';tag="t1"', ";tag=t1;y=2", ";tag="]),
)
def test_tags_are_read_as_the_address_parser_reads_them(address, tag):
    head = f"BYE sip:a@h SIP/2.0\r\nFrom: {address}{tag}\r\nTo: {address}{tag}\r\nCall-ID: c\r\nCSeq: 1 BYE\r\n\r\n"
    message = parse_message(head.encode())
    assert message is not None
    assert message.to is not None
    found = read_exchange(message)
    assert found is not None
    assert found.to_tag == (message.to.tag or None)


@given(
    st.sampled_from(
        [
            "SIP/2.0/UDP h;branch=z9hG4bK1",
            "SIP/2.0/UDP h;branch=z9hG4bK1;rport",
            "SIP/2.0/UDP h;rport;branch=z9hG4bK1, SIP/2.0/UDP i;branch=z9hG4bK2",
            "SIP/2.0/UDP h, SIP/2.0/UDP i;branch=z9hG4bK2",
            "SIP/2.0/UDP h;branch=old",
            "SIP/2.0/UDP h;BRANCH=z9hG4bK1",
            "nonsense",
        ]
    )
)
def test_branches_are_read_as_the_via_parser_reads_them(via):
    message = parse_message(f"BYE sip:a@h SIP/2.0\r\nVia: {via}\r\n\r\n".encode())
    assert message is not None
    assert top_branch(message) == message.top_branch
