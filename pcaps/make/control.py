"""Tell a baresip on this host what to do: `control.py COMMAND [PARAMETERS]`, through its module ctrl_tcp."""

import json
import socket
import sys

CONTROL_PORT = 4444


def send_command(command: str, parameters: str) -> None:
    """A netstring of JSON there; what comes back is printed."""
    request = {"command": command, "params": parameters, "token": "lab"}
    body = json.dumps(request).encode()
    with socket.create_connection(("127.0.0.1", CONTROL_PORT), 5) as stream:
        stream.sendall(b"%d:%s," % (len(body), body))
        stream.settimeout(1.0)
        try:
            print(stream.recv(4096).decode(errors="replace"))
        except TimeoutError:
            print("no answer")


if __name__ == "__main__":
    send_command(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "")
