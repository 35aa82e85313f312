"""SIP without media: messages a second and core, as calls and as REGISTER and OPTIONS that are passed over.

`python -m bench.sip --messages 1000000`. One worker; the start-up is measured on a capture of one call and subtracted.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.measure import generate, machine, replay, scratch, table

SHARES = ((0.0, "REGISTER and OPTIONS only"), (0.3, "30 % calls"), (1.0, "calls only"))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure SIP messages a second and core.")
    parser.add_argument("--messages", type=int, default=300_000, help="of each capture (300000)")
    parser.add_argument("--rounds", type=int, default=2, help="of which the one with the least CPU counts (2)")
    parser.add_argument("--dir", type=Path, help="for the captures and the recordings (in memory, if there is room)")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    print(f"On {machine()}.\n", flush=True)
    rows = []
    with scratch(options.dir, options.messages * 6_000) as work:
        one, capture, out = work / "one.pcap", work / "sip.pcap", work / "out"
        generate(one, "--calls", 1, "--seconds", 1)
        replay(one, out)
        start = min(replay(one, out, "--workers", "1").cpu for _ in range(2 * options.rounds))
        for share, name in SHARES:
            messages = generate(capture, "--sip-only", options.messages, "--call-share", share)
            runs = [replay(capture, out, "--workers", "1") for _ in range(options.rounds)]
            cpu, peak = min(each.cpu for each in runs), max(each.peak_mb for each in runs)
            calls = sum(1 for _ in out.rglob("call.json"))
            rate = messages / max(cpu - start, 1e-9)
            rows.append((name, messages, calls, f"{cpu:.2f}", f"{start:.2f}", f"{rate:,.0f}", f"{peak:.0f}"))
    heads = ("", "messages", "recordings", "CPU s", "of it start-up", "messages per CPU-second", "peak MB")
    print(table(heads, rows))


if __name__ == "__main__":
    main()
