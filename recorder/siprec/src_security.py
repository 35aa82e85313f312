"""Whether a recording session is as secure as the call that it records (RFC 7866, section 12).

In: a server as settings have it, whether the call is encrypted. Out: how media go there, and why they must not.
"""

from recorder.siprec.src_decision import Protection, Server


def uses_tls(server: Server) -> bool:
    """Whether signalling goes there by TLS; through an outbound proxy, what counts is the way to that."""
    uri = (server.via or server.uri).lower()
    return uri.startswith("sips:") or ";transport=tls" in uri


def sends_srtp(server: Server, *, encrypted: bool) -> bool:
    """Whether media go there as SRTP."""
    return server.protection is Protection.SAVP or (server.protection is Protection.SAME and encrypted)


def leaks_keys(server: Server, *, encrypted: bool) -> bool:
    """Whether keys of ours would go there for anybody to read, and nobody allowed that."""
    return sends_srtp(server, encrypted=encrypted) and not uses_tls(server) and not server.keys_in_clear


def why_unsafe(server: Server, *, encrypted: bool) -> str:
    """Why a server must not have a session, a phrase; empty where it may."""
    if leaks_keys(server, encrypted=encrypted):
        return "keys of its media would go there unencrypted: use TLS"
    if encrypted and not sends_srtp(server, encrypted=encrypted):
        return "the call is encrypted, and this server would get it in the clear"
    return ""
