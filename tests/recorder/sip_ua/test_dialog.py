"""Dialogs: who is who, which way, in which order (RFC 3261, section 12)."""

from recorder.sip_ua.dialog import dialog_of_callee, dialog_of_caller
from tests.sip_messages import VIA, parsed, request, response

ROUTES = ("Record-Route: <sip:near;lr>, <sip:mid;lr>", "Record-Route: <sip:far;lr>", "Contact: <sip:b@10.0.0.2:7>")


def incoming(*headers: tuple[str, str]):
    return parsed(request("INVITE", headers=headers).encode(VIA))


def test_the_caller_takes_the_routes_backwards_and_the_callee_as_they_are():
    caller = dialog_of_caller(request(), response(200, "INVITE", *ROUTES))
    assert caller.routes == ("<sip:far;lr>", "<sip:mid;lr>", "<sip:near;lr>")
    assert caller.id == ("call", "a", "b")
    assert caller.remote_target == "sip:b@10.0.0.2:7"
    assert caller.next_hop == "sip:far;lr"
    record = [("Record-Route", "<sip:near;lr>, <sip:far;lr>"), ("Contact", "<sip:a@10.0.0.1:9>")]
    callee = dialog_of_callee(incoming(*record), "t", '"Rec" <sip:rec@here>')
    assert callee.routes == ("<sip:near;lr>", "<sip:far;lr>")
    assert callee.id == ("call", "t", "a")
    assert callee.local == '"Rec" <sip:rec@here>;tag=t'
    assert callee.remote == "<sip:a@10.0.0.1>;tag=a"


def test_requests_count_up_and_an_ack_has_its_invites_number():
    dialog = dialog_of_caller(request(), response(200, "INVITE", *ROUTES))
    assert [dialog.request("INFO").cseq for _ in range(3)] == [2, 3, 4]
    ack = dialog.request("ACK", cseq=1)
    assert ack.cseq == 1
    assert ack.uri == "sip:b@10.0.0.2:7"
    assert ack.to == "<sip:b@10.0.0.2>;tag=b"
    assert dialog.request("BYE").cseq == 5


def test_a_strict_router_gets_itself_as_request_uri():
    dialog = dialog_of_caller(request(), response(200, "INVITE", "Record-Route: <sip:x;lr>, <sip:strict>", ROUTES[2]))
    sent = dialog.request("BYE")
    assert sent.uri == "sip:strict"
    assert sent.routes == ("<sip:x;lr>", "<sip:b@10.0.0.2:7>")


def test_only_target_refresh_requests_move_the_target_and_only_to_usable_ones():
    dialog = dialog_of_callee(incoming(("Contact", "<sip:a@10.0.0.1:9>")), "t")
    for method, contact, target in (
        ("INFO", "<sip:x@10.0.0.9>", "sip:a@10.0.0.1:9"),
        ("UPDATE", "<tel:1>", "sip:a@10.0.0.1:9"),
        ("UPDATE", "<sip:y@10.0.0.9>", "sip:y@10.0.0.9"),
        ("INVITE", "*", "sip:y@10.0.0.9"),
    ):
        dialog.refresh(parsed(request(method, headers=(("Contact", contact),)).encode(VIA)))
        assert dialog.remote_target == target
    dialog.refresh(response(200, "INVITE", "Contact: <sip:z@10.0.0.9>"))
    assert dialog.remote_target == "sip:z@10.0.0.9"


def test_a_peer_without_a_usable_contact_is_reached_where_it_was():
    assert dialog_of_caller(request(), response(200)).remote_target == "sip:b@10.0.0.2"
    assert dialog_of_callee(incoming(("Contact", "<mailto:x>")), "t").remote_target == "sip:a@10.0.0.1"
