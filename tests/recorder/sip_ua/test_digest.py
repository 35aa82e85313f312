"""Digest authentication: the standards' own examples, and our two sides against each other."""

import re
from dataclasses import replace
from itertools import count

import pytest

from capture.address import Endpoint
from decoders.sip import SipMessage, parse_message
from recorder.model import Transport
from recorder.sip_ua.api import Body, Credentials, Peer, Reply
from recorder.sip_ua.digest import Authorizer, Challenger, challenges, parse_pairs, response_value, secret_of
from recorder.sip_ua.message import Request

URI = "sip:rec@srs.example"
WHO = Credentials("src", 'pass "word"')
PEER = Peer(Endpoint(0, 0xFFFF_0000_0000 | 0x7F000001, 5060), Transport.UDP)


def challenge(*values: str, status: int = 401, name: str = "WWW-Authenticate") -> SipMessage:
    lines = "".join(f"{name}: {value}\r\n" for value in values)
    message = parse_message(f"SIP/2.0 {status} No\r\n{lines}Content-Length: 0\r\n\r\n".encode())
    assert message is not None
    return message


def invite(**changes: object) -> Request:
    return Request("INVITE", URI, "<sip:a@b>;tag=1", f"<{URI}>", "call", 1, **changes)  # type: ignore[arg-type]


def sent(request: Request) -> SipMessage:
    message = parse_message(request.encode("SIP/2.0/UDP 127.0.0.1;branch=z9hG4bK1"))
    assert message is not None
    return message


@pytest.mark.parametrize(
    ("algorithm", "wanted"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_the_examples_of_rfc_7616_section_3_9_1(algorithm, wanted):
    secret = secret_of(Credentials("Mufasa", "Circle of Life"), "http-auth@example.org")
    assert wanted == response_value(
        algorithm, secret, "GET", "/dir/index.html", "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
        qop="auth", count="00000001", cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
    )  # fmt: skip


def test_the_example_of_rfc_7616_section_3_9_2_as_erratum_4897_corrects_it():
    secret = secret_of(Credentials("J\u00e4s\u00f8n Doe", "Secret, or not?"), "api@example.org")
    assert response_value(
        "SHA-512-256", secret, "GET", "/doe.json", "5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK",
        qop="auth", count="00000001", cnonce="NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v",
    ) == "3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5"  # fmt: skip


def test_the_example_of_rfc_2617_section_3_5():
    secret = secret_of(Credentials("Mufasa", "Circle Of Life"), "testrealm@host.com")
    assert response_value(
        "MD5", secret, "GET", "/dir/index.html", "dcd98b7102dd2f0e8b11d0f600bfb0c093",
        qop="auth", count="00000001", cnonce="0a4f113b",
    ) == "6629fae49393a05397450978507c4ef1"  # fmt: skip


def test_the_best_challenge_that_is_understood_is_answered():
    found = challenges(
        challenge(
            'Digest realm="r", nonce="1", algorithm=MD5, qop="auth"',
            'Digest realm="r", nonce="2", algorithm=SHA-256, qop="auth-int,auth"',
            'Digest realm="r", nonce="3", algorithm=WHIRLPOOL, qop="auth"',
            'Basic realm="r"',
        )
    )
    assert [(each.nonce, each.qop) for each in found] == [("2", "auth"), ("1", "auth")]


@pytest.mark.parametrize("algorithm", ["MD5", "MD5-sess", "SHA-256", "SHA-256-sess", "SHA-512-256"])
@pytest.mark.parametrize("qop", ['qop="auth"', 'qop="auth-int"', ""])
def test_every_kind_of_challenge_is_answered(algorithm, qop):
    request = invite(body=Body("application/sdp", b"v=0\r\n"))
    answered = Authorizer(WHO, lambda: "c0")(
        challenge(f'Digest realm="a\\"b", nonce="n", algorithm={algorithm}, {qop}'), request
    )
    assert answered is not None
    pairs = parse_pairs(dict(answered.headers)["Authorization"].partition(" ")[2])
    assert pairs["realm"] == 'a"b'
    assert pairs["response"] == response_value(
        algorithm, secret_of(WHO, 'a"b'), "INVITE", URI, "n", qop=pairs.get("qop"), count=pairs.get("nc", ""),
        cnonce=pairs.get("cnonce", ""), body=b"v=0\r\n",
    )  # fmt: skip


def test_a_wrong_password_is_offered_once_and_a_stale_nonce_is_replaced():
    authorize = Authorizer(WHO)
    first = authorize(challenge('Digest realm="r", nonce="1", qop="auth"'), invite())
    assert first is not None
    assert authorize(challenge('Digest realm="r", nonce="2", qop="auth"'), first) is None
    again = authorize(challenge('Digest realm="r", nonce="2", qop="auth", stale=true'), first)
    assert again is not None
    assert [name for name, _ in again.headers] == ["Authorization"]
    assert 'nonce="2"' in again.headers[0][1]


def test_a_proxy_and_a_server_are_both_answered():
    authorize = Authorizer(WHO)
    first = authorize(challenge('Digest realm="p", nonce="1"', status=407, name="Proxy-Authenticate"), invite())
    assert first is not None
    both = authorize(challenge('Digest realm="s", nonce="2"'), first)
    assert both is not None
    assert sorted(name for name, _ in both.headers) == ["Authorization", "Proxy-Authorization"]


def test_another_realm_than_the_credentials_are_for_gets_nothing():
    authorize = Authorizer(Credentials("u", "p", "mine"))
    assert authorize(challenge('Digest realm="other", nonce="1"'), invite()) is None


def test_secrets_show_in_no_text():
    assert "pass" not in repr(WHO)
    assert "pass" not in repr(secret_of(WHO, "r"))


class TestChallenger:
    def setup_method(self):
        self.now = 1000.0
        self.challenger = Challenger({"src": WHO.password}.get, lambda: self.now)

    def ask(self, request: Request) -> Reply | Peer:
        return self.challenger(sent(request), PEER)

    def answer(self, credentials: Credentials = WHO, authorize: Authorizer | None = None) -> Request:
        reply = self.ask(invite())
        assert isinstance(reply, Reply)
        assert reply.status == 401
        answered = (authorize or Authorizer(credentials))(challenge(*(value for _, value in reply.headers)), invite())
        assert answered is not None
        return answered

    def test_who_knows_the_password_comes_in_by_sha_256(self):
        request = self.answer()
        assert "algorithm=SHA-256" in request.headers[0][1]
        verdict = self.ask(request)
        assert isinstance(verdict, Peer)
        assert verdict.user == "src"

    @pytest.mark.parametrize("who", [Credentials("src", "wrong"), Credentials("nobody", WHO.password)])
    def test_who_does_not_is_asked_again(self, who):
        verdict = self.ask(self.answer(who))
        assert isinstance(verdict, Reply)
        assert "stale" not in verdict.headers[0][1]

    def test_what_was_overheard_cannot_be_used_again(self):
        request = self.answer()
        assert isinstance(self.ask(request), Peer)
        verdict = self.ask(request)
        assert isinstance(verdict, Reply)
        assert "stale=true" in verdict.headers[0][1]

    def test_a_nonce_grows_old(self):
        request = self.answer()
        self.now += 200
        verdict = self.ask(request)
        assert isinstance(verdict, Reply)
        assert "stale=true" in verdict.headers[0][1]

    def test_a_nonce_that_is_not_ours_is_none(self):
        counter = count()
        forged = Authorizer(WHO, lambda: f"{next(counter)}")(
            challenge('Digest realm="spanrec", nonce="3e8.1.2", qop="auth", algorithm=MD5'), invite()
        )
        assert forged is not None
        assert isinstance(self.ask(forged), Reply)

    def test_a_proxy_may_have_changed_the_request_uri(self):
        request = self.answer()
        assert isinstance(self.ask(replace(request, uri="sip:10.0.0.5:5060")), Peer)

    @pytest.mark.parametrize(
        ("name", "other"), [("uri", "sip:other@srs.example"), ("realm", "there"), ("nc", "00000002")]
    )
    def test_credentials_that_were_changed_are_worth_nothing(self, name, other):
        request = self.answer()
        changed = re.sub(rf'\b{name}="?[^",]*"?', f'{name}="{other}"', request.headers[0][1])
        assert changed != request.headers[0][1]
        verdict = self.ask(replace(request, headers=(("Authorization", changed),)))
        assert isinstance(verdict, Reply)

    def test_credentials_for_another_method_are_worth_nothing(self):
        assert isinstance(self.ask(replace(self.answer(), method="OPTIONS")), Reply)
