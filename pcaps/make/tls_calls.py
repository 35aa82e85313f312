"""A call whose SIP goes over TLS; the client's key log is kept beside the capture."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pcaps.make.network import Lab, address
from pcaps.make.scenario import Person, Script
from pcaps.make.sipp_calls import Pair, plain, sipp, talkers

RELAY = Path(__file__).resolve().parent / "tlsrelay.py"
PORT = 5061


class _Relayed(Pair):
    """Both sipps speak TCP, each to a relay on its own host; TLS is what crosses the wire."""

    def run(self) -> None:
        there = f"{address('b')}:{PORT}"
        self.calling.steps = [step.replace("[remote_ip]:[remote_port]", there) for step in self.calling.steps]
        sipp(self.lab, "b", self.called, media_port=22000, transport="tcp", port=5070)
        caller = sipp(self.lab, "a", self.calling, "127.0.0.1:5070", self.call_id, 21000, transport="tcp")
        if caller.wait(40):
            raise RuntimeError(f"{self.name}: sipp ended with {caller.returncode}; see {self.lab.work}")


def tls(lab: Lab) -> dict[str, Any]:
    """SIP over TLS 1.3 (OpenSSL); `tls.keys` is the client's key log."""
    certificate, key = lab.work / "tls.crt", lab.work / "tls.key"
    subject = f"/CN={address('b')}"
    request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    request += ["-days", "30", "-subj", subject, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(request, check=True, capture_output=True)
    to_sipp = [address("b"), "5070", str(certificate), str(key)]
    lab.start("b", sys.executable, str(RELAY), "server", address("b"), str(PORT), *to_sipp, log="tls-server")
    keys = str(lab.work / "tls.keys")
    lab.start("a", sys.executable, str(RELAY), "client", "5070", address("b"), str(PORT), keys, log="tls-client")
    time.sleep(0.7)
    pair = _Relayed(lab, "tls", transport="tcp")
    pair.caller = Person("alice", "Alice Caller", "a-tls", address("a"), PORT, ";transport=tls")
    pair.callee = Person("bob", "Bob Callee", "b-tls", address("b"), PORT, ";transport=tls")
    pair.calling = Script(pair.caller, pair.callee, "TLS", f"{address('a')}:{PORT}")
    pair.called = Script(pair.callee, pair.caller)
    one, two = talkers(pair, "PCMU")
    plain(pair, "PCMU", 3, one.speak(3), two.speak(3))
    return {"calls": [pair.call("completed", pair.streams(one, two))]}
