"""The recording policy: what is done with a call, decided once, as it begins.

In: `CallFacts`. Out: a `Decision` by the first rule whose conditions all hold, else by the default. `PolicyHolder`
keeps the rules in force, those of retention too, and takes others from the settings while calls go on. Never changes a
decision that was made.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from capture.errors import SpanrecError
from recorder.call_facts import CallFacts
from recorder.model import Call
from recorder.policy_conditions import Condition
from recorder.retention_rules import Retention, load_retention
from recorder.trace import note

TRACE_CODE = "policy"


class Action(StrEnum):
    """What is done with a call."""

    RECORD = "record"
    METADATA = "metadata"
    """Documents without audio."""
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Decision:
    """What is done with a call, and why."""

    action: Action = Action.RECORD
    keep_packets: bool = False
    tags: tuple[str, ...] = ()
    """Distinct and sorted."""
    rule: str = "no rule"
    """Number and name of the rule, or that there was none."""

    def __str__(self) -> str:
        """A sentence for the decision trace."""
        parts = [f"{self.rule}: {self.action}"]
        if self.keep_packets:
            parts.append("keep packets")
        if self.tags:
            parts.append(f"tags {' '.join(self.tags)}")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule, ready to be asked."""

    conditions: tuple[Condition, ...]
    decision: Decision

    def holds(self, facts: CallFacts) -> bool:
        """Whether every condition holds."""
        return all(condition(facts) for condition in self.conditions)


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules in order."""

    rules: tuple[Rule, ...] = ()
    otherwise: Decision = Decision()

    @property
    def keeps_packets(self) -> bool:
        """Whether there may be calls whose packets are kept."""
        return self.otherwise.keep_packets or any(rule.decision.keep_packets for rule in self.rules)

    def decide(self, facts: CallFacts) -> Decision:
        """By the first rule that holds."""
        for rule in self.rules:
            if rule.holds(facts):
                return rule.decision
        return self.otherwise


def without_audio(policy: Policy) -> Policy:
    """The same policy where nothing is recorded here: documents are all that is kept of a call."""

    def less(decision: Decision) -> Decision:
        return replace(decision, action=Action.METADATA) if decision.action is Action.RECORD else decision

    rules = tuple(replace(rule, decision=less(rule.decision)) for rule in policy.rules)
    return Policy(rules, less(policy.otherwise))


def note_decision(call: Call, decision: Decision) -> None:
    """Put a decision into the call's trace, and its tags on the call."""
    call.tags = decision.tags
    note(call, call.started, call.first_packet, TRACE_CODE, str(decision))


class PolicyHolder:
    """The policy and the retention in force. `reload` may run in another thread than those who ask."""

    def __init__(
        self,
        policy: Policy,
        refused: Callable[[str], None],
        retention: Retention | None = None,
        taken: Callable[[str], None] = lambda _: None,
        adapt: Callable[[Policy], Policy] = lambda policy: policy,
    ) -> None:
        """`refused` and `taken` are told, in a sentence, of settings that were read again. `adapt` makes of a policy
        that was read the one that holds."""
        self._adapt = adapt
        self.policy = adapt(policy)
        """Replaced as a whole: whoever decides meanwhile does so by the old rules or by the new."""
        self.retention = retention or Retention()
        self._refused, self._taken = refused, taken

    def decide(self, facts: CallFacts) -> Decision:
        """By the rules in force."""
        return self.policy.decide(facts)

    def reload(self, path: Path) -> bool:
        """Take policy and retention of the settings file at `path`. A bad one is refused, with a sentence; the old
        ones stay."""
        from recorder.policy_file import load_policy
        from recorder.settings import read

        try:
            settings = read(path)
            policy, retention = load_policy(settings, path), load_retention(settings, path)
        except SpanrecError as error:
            self._refused(f"{error}; the recording policy stays as it was")
            return False
        self.policy, self.retention = self._adapt(policy), retention
        self._taken(f"{path}: {len(policy.rules)} rules are in force")
        return True
