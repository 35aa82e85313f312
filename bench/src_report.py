"""What benchmarks of recording sessions say, and whether anything was wrong.

In: sentences. Out: lines on standard output, a count of what was wrong.
"""


class Report:
    """What is said, and whether anything was wrong."""

    def __init__(self) -> None:
        self.wrong = 0

    def say(self, text: str) -> None:
        print(text, flush=True)

    def expect(self, right: bool, text: str) -> None:
        """Say a figure, and whether it is as it must be."""
        self.wrong += not right
        self.say(f"{'ok   ' if right else 'WRONG'} {text}")
