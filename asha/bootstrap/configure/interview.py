"""From the questions to an asha.conf: asked one after the other (``Interview``), in a
terminal (``ask``) or through debconf, or from a file of answers (``complete``).

All three judge by the same rules: ``judge``.
"""

from __future__ import annotations

import ipaddress
import textwrap
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from asha import terminal
from asha.bootstrap.configure.context import Asking, Values
from asha.bootstrap.configure.defaults import STANDARD
from asha.bootstrap.configure.questions import QUESTIONS, Question
from asha.bootstrap.facts import Facts, static_lan_address
from asha.bootstrap.preflight import checks
from asha.cluster import rules
from asha.cluster import site as conf
from asha.cluster.rules import own_key
from asha.cluster.site import KEYS, site_of
from asha.conf import key_of
from asha.finding import Finding, error
from asha.machine import Machine

# What _derived() makes of the answers.
FOLLOWING = ("IP", "CLUSTERNET")
ALL = tuple(question.name for question in QUESTIONS)


def judge(
    machine: Machine, facts: Facts, values: Values, names: Collection[str] = ALL
) -> list[Finding]:
    """Every error in these values; some of them may still be missing.

    ``names``: the questions for whose answers the machine is checked as well.
    """
    found = rules.check(values)
    wrong = {finding.key for finding in found}
    looked = checks.look(machine, conf.draft(values), facts, checks=checks.of_answers(names))
    return found + [one for one in looked if one.severity == "error" and one.key not in wrong]


# Asked.

class Front(Protocol):
    """What asks: a terminal, or debconf."""

    def ask(self, turn: Turn) -> str | None:
        """Return a valid answer, if there is one; None: back to the question before."""

    def wants(self, turn: Turn) -> bool:
        """Whether this question is to be asked; otherwise its default is taken."""


@dataclass
class Turn:
    """One question, when it is asked.

    An answer is judged together with those before it (``asking``). Earlier answers, some of
    which are corrected later on, only suggest (``suggesting``).
    """

    interview: Interview
    question: Question
    answered: Values
    # For the way back, which passes by what nobody saw.
    was_shown: bool = True

    def __post_init__(self) -> None:
        talk = self.interview
        self.asking = Asking(talk.facts, self.answered)
        self.suggesting = Asking(talk.facts,
                                 _of_this_role(talk.known, self.answered) | self.answered)
        self.default = self.question.default(self.suggesting)

    def taken(self, answer: str) -> Values:
        return self.question.taken(self.asking, answer)

    def objections(self, answer: str) -> list[Finding]:
        """Why an answer, as it was typed, is invalid; empty if it is valid."""
        question, key = self.question, self.question.key(self.asking)
        words = [word for word, _ in question.choices(self.suggesting)]
        if question.answers is not None and answer not in words:
            return [error(f"{answer or 'nothing'}: must be {' or '.join(words)}", "", key)]
        if not answer:
            return [] if question.optional else [error(f"{key}: an answer is needed", "", key)]
        values, names = self._with_what_follows(answer)
        known = rules.check(self.answered) + self.interview.standing
        talk = self.interview
        return [one for one in judge(talk.machine, talk.facts, values, names) if one not in known]

    def _with_what_follows(self, answer: str) -> tuple[Values, list[str]]:
        """The values with this answer, and with later ones that the machine knows."""
        values, names = self.answered | self.taken(answer), [self.question.name]
        for question in QUESTIONS[QUESTIONS.index(self.question) + 1:]:
            turn = Turn(self.interview, question, values)
            if question.is_asked(turn.suggesting):
                break
            if turn.default:
                values = values | turn.taken(turn.default)
                names.append(question.name)
        return values, names


@dataclass
class Interview:
    """``known`` are the values of an earlier asha.conf: they are the defaults. ``standing`` are
    findings that nobody is there to correct."""

    machine: Machine
    facts: Facts
    known: Values
    standing: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.known = normal(self.known)

    def walk(
        self, front: Front, questions: Sequence[Question] = QUESTIONS,
        answered: Values | None = None,
    ) -> Values | None:
        """The answers; None where the person went back from the first question."""
        # The questions that were asked, each with the answers before it.
        trail: list[tuple[int, Values]] = []
        values, number = dict(answered or {}), 0
        while number < len(questions):
            turn = Turn(self, questions[number], values)
            if front.wants(turn):
                answer = front.ask(turn)
                if answer is None:
                    if not trail:
                        return None
                    number, values = trail.pop()
                    continue
                if turn.was_shown:
                    trail.append((number, values))
                values = values | turn.taken(answer)
            elif turn.default:
                values = values | turn.taken(turn.default)
            number += 1
        return values

    def whole(self, answered: Values) -> Values:
        """All values of an asha.conf. Raises SiteError."""
        kept = {key: value for key, value in _of_this_role(self.known, answered).items()
                if key not in FOLLOWING}
        nic = self.facts.nic(answered.get("LANNIC", ""))
        if nic and nic.addresses:
            kept.pop(own_key(answered, "LAN"), "")  # as it is now, not as it was
        return _derived(kept | answered, self.facts)


def _of_this_role(known: Values, answered: Values) -> Values:
    """The earlier values; without the nodes, where they describe the other role."""
    role = rules.is_yes(known.get("PRIMARY", ""))
    if "PRIMARY" in answered and rules.is_yes(answered["PRIMARY"]) != role:
        return {key: value for key, value in known.items() if "NODE" not in key}
    return dict(known)


@dataclass
class Person:
    """Asks at a terminal, until the answer is valid."""

    read: Callable[[str], str]
    say: Callable[[str], None]

    def wants(self, turn: Turn) -> bool:
        return turn.question.is_asked(turn.suggesting)

    def ask(self, turn: Turn) -> str:
        question, default = turn.question, turn.default
        self.say("")
        if question.help:
            self.say(textwrap.fill(question.help, terminal.COLUMNS, initial_indent="  ",
                                   subsequent_indent="  "))
        for word, meaning in question.choices(turn.suggesting):
            self.say(f"    {word}  {meaning}".rstrip())
        while True:
            prompt = f"{question.text} [{default}]: " if default else f"{question.text}: "
            answer = self.read(prompt).strip() or default
            if answer == "-" and question.optional:
                answer = ""
            wrong = turn.objections(answer)
            if not wrong:
                return answer
            for finding in wrong:
                self.say(f"  {finding.what}")
                if finding.hint:
                    self.say(f"    {finding.hint}")


def ask(
    machine: Machine,
    facts: Facts,
    known: Values,
    read: Callable[[str], str] = terminal.answer,
    say: Callable[[str], None] = terminal.show,
) -> Values:
    """Ask a person, and return the values of a whole asha.conf.

    Raises EOFError and KeyboardInterrupt as ``read`` does; nothing is written here.
    """
    interview = Interview(machine, facts, known)
    answered = interview.walk(Person(read, say))
    assert answered is not None  # there is no way back in a terminal
    return interview.whole(answered)


# From a file.

def complete(machine: Machine, facts: Facts, given: Values) -> tuple[Values, list[Finding]]:
    """All values of an asha.conf from answers with its keys, and everything that is wrong.

    A value that is not given comes from the machine where possible.
    """
    values = normal(given)
    if "PRIMARY" not in values:
        return values, [error("PRIMARY is missing: true on the first node, false on the second",
                              "write PRIMARY=true or PRIMARY=false", "PRIMARY")]
    for question in QUESTIONS:
        asking = Asking(facts, values)
        if question.answers is None and question.key(asking) not in values:
            key = question.key(asking)
            default = question.default(asking) or STANDARD.get(key)
            if default:
                values[key] = default
    findings = [error(f"{key.name} is missing: {key.meaning}", "", key.name)
                for key in KEYS if key.default is None and not values.get(key.name)]
    findings += judge(machine, facts, {**STANDARD, **values})
    return (values if findings else _derived(values, facts)), findings


def normal(given: Values) -> Values:
    """The values spelt as the questions spell them, without empty ones."""
    values = {key: value for key, value in given.items() if value}
    for key in ("PRIMARY", "USENIC1", "LANWATCH"):
        word = values.get(key, "").lower()
        if word in rules.YES + rules.NO:
            values[key] = "true" if word in rules.YES else "false"
    return {key: value for key, value in conf.turned(values).items() if value}


def _derived(values: Values, facts: Facts) -> Values:
    """The values, and those that follow from the answers.

    The other node's LAN address is learnt when it joins; a known one is kept.
    """
    site = site_of(values)
    network = ipaddress.IPv4Network((site.here.address, site.link_prefix), strict=False)
    lan = own_key(values, "LAN")
    static = static_lan_address(facts.nics, site) if site.two_nics else ""
    return {
        **values,
        "IP": site.here.address,
        "CLUSTERNET": str(network.network_address),
        lan: values.get(lan) or static,
        "LDAP": values.get("LDAP") or ("YES" if "slapd" in facts.versions else "NO"),
    }


def render(values: Values, earlier: str = "") -> str:
    """The text of asha.conf. Lines of ``earlier`` whose keys are not asha's are kept."""
    lines = ["# The cluster, as asha knows it: asha.conf(5). To change it: asha configure"]
    for key in KEYS:
        lines += ["", f"# {key.meaning}", f"{key.name}={values.get(key.name) or key.default or ''}"]
    ours = {key.name for key in KEYS}
    foreign = [line.strip() for line in earlier.splitlines()
               if (name := key_of(line)) is not None and name not in ours]
    if foreign:
        lines += ["", "# Not asha's, and kept", *foreign]
    return "\n".join(lines) + "\n"
