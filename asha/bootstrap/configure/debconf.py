"""The questions through debconf, when the package is configured: debconf-devel(7).

debconf is no registry: if there is an asha.conf, also one of 2014, it gives the answers, and
what it answers is not asked. What was preseeded is not asked either, unless it is invalid and
somebody is there.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TextIO

from asha.bootstrap.configure.context import Asking, Values
from asha.bootstrap.configure.interview import Interview, Turn, normal
from asha.bootstrap.configure.questions import QUESTIONS, Question
from asha.bootstrap.facts import Facts
from asha.cluster.site import SiteError
from asha.errors import UserError
from asha.finding import Finding, in_words
from asha.machine import Machine
from asha.run.text import printable

# Answers to GO and INPUT: the person goes back; the question is not shown.
BACK, NOT_SHOWN = 30, 30
# The relay's question was a yes or no once, and may be preseeded so.
ONCE = {"relay": {"true": "here", "false": "none"}}


class Debconf:
    """The commands of debconf, each with its answer, over two streams. Raises UserError."""

    def __init__(self, replies: TextIO, commands: TextIO) -> None:
        self._replies, self._commands = replies, commands
        self._do("VERSION 2.0")
        self._do("CAPB backup")

    def get(self, name: str) -> str:
        return self._do(f"GET asha/{name}")[1]

    def set(self, name: str, value: str) -> None:
        self._do(f"SET asha/{name} {_line(value)}")

    def be_seen(self, name: str, seen: bool) -> None:
        self._do(f"FSET asha/{name} seen {str(seen).lower()}")

    def tell(self, name: str, **words: str) -> None:
        """Set what replaces ${WORD} in the question's text."""
        for word, text in words.items():
            self._do(f"SUBST asha/{name} {word} {_line(text)}")

    def put(self, priority: str, name: str) -> bool:
        """Whether the question will be shown: nobody may be there, or it was seen already."""
        return self._do(f"INPUT {priority} asha/{name}", NOT_SHOWN)[0] == 0

    def go(self) -> bool:
        """Show the questions that were put; False if the person goes back."""
        return self._do("GO", BACK)[0] == 0

    def _do(self, command: str, *allowed: int) -> tuple[int, str]:
        try:
            self._commands.write(f"{command}\n")
            self._commands.flush()
            code, _, text = self._replies.readline().rstrip("\n").partition(" ")
        except OSError as problem:
            raise UserError(f"debconf cannot be talked to: {problem.strerror}") from None
        if not code.isdecimal():
            raise UserError("debconf has ended the conversation")
        if int(code) not in (0, *allowed):
            raise UserError(f"debconf answers {code} {text} to: {command}")
        return int(code), text


def _line(text: str) -> str:
    """The text on one line: it may quote an answer, goes to a terminal, and a line is a
    command."""
    return printable(text).replace("\n", " ")


@dataclass
class Front:
    """Asks one question until its answer is valid.

    Where nobody is there to be asked, an invalid answer is taken all the same: ``refused`` has
    the reason, and ``unanswered`` the questions without an answer.
    """

    debconf: Debconf
    refused: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    # What was suggested, so that another suggestion may take its place.
    offered: dict[str, str] = field(default_factory=dict)

    def wants(self, turn: Turn) -> bool:
        return turn.question.when(turn.suggesting)

    def ask(self, turn: Turn) -> str | None:
        name, talk = turn.question.name, self.debconf
        self._offer(turn)
        talk.tell(name, HERE=turn.question.surroundings(turn.suggesting))
        # What the machine tells is only for who wants to see everything.
        priority = ("low" if turn.question.told(turn.suggesting)
                    else "critical" if turn.question.vital else "high")
        turn.was_shown = insisted = False
        while True:
            is_shown = talk.put(priority, name)
            turn.was_shown |= is_shown
            if not talk.go():
                return None
            answer = self._typed(turn)
            wrong = turn.objections(answer)
            if not wrong:
                return answer
            if is_shown:
                self._say_why(wrong)
            elif insisted:
                self._refuse(turn, answer, wrong)
                return answer
            # Preseeded, or too unimportant to be shown: but it will not do.
            insisted, priority = True, "critical"
            talk.be_seen(name, False)

    def _offer(self, turn: Turn) -> None:
        """Suggest a value to somebody who has given none."""
        name, talk = turn.question.name, self.debconf
        value = talk.get(name)
        if value in ("", self.offered.get(name)) and turn.default:
            self.offered[name] = _spelt(turn.question, turn.suggesting, turn.default)
            talk.set(name, self.offered[name])
        elif value in ONCE.get(name, {}):
            talk.set(name, ONCE[name][value])

    def _typed(self, turn: Turn) -> str:
        """The answer as it would be typed in a terminal."""
        name = turn.question.name
        value = self.debconf.get(name).strip()
        if is_boolean(turn.question):
            words = [word for word, _ in turn.question.choices(turn.suggesting)]
            return words[0] if value == "true" else words[1]
        return value

    def _say_why(self, wrong: list[Finding]) -> None:
        self.debconf.tell("problem", PROBLEM="; ".join(one.what for one in wrong),
                          HINT="; ".join(one.hint for one in wrong if one.hint))
        self.debconf.be_seen("problem", False)
        self.debconf.put("critical", "problem")
        self.debconf.go()

    def _refuse(self, turn: Turn, answer: str, wrong: list[Finding]) -> None:
        name = f"asha/{turn.question.name}"
        if answer:
            self.refused += in_words([replace(one, what=f"{name}: {one.what}") for one in wrong])
        else:
            self.unanswered.append(name)
        turn.interview.standing += wrong


def is_boolean(question: Question) -> bool:
    """Its two answers are asha.conf's true and false, in this order."""
    return question.name in ("primary", "usenic1", "lanwatch")


def _spelt(question: Question, asking: Asking, typed: str) -> str:
    """The answer as debconf keeps it."""
    if is_boolean(question):
        return "true" if typed == question.choices(asking)[0][0] else "false"
    return typed


def seed(debconf: Debconf, facts: Facts, known: Values) -> None:
    """Give debconf the values of an asha.conf."""
    asking = Asking(facts, normal(known))
    for question in _asked():
        said = asking.values.get(question.key(asking), "")
        if said:
            debconf.set(question.name, said if question.name != "relay" else
                        _spelt(question, asking, question.default(asking)))
            debconf.be_seen(question.name, True)


def _asked() -> list[Question]:
    """This node's own name is not asked for: the machine has it."""
    return [question for question in QUESTIONS if question.name != "name"]


def ask(debconf: Debconf, machine: Machine, facts: Facts, known: Values,
        again: bool) -> Values | None:
    """The values of a whole asha.conf; None where the person gave no answers.

    ``again``: ask also what was answered before. Raises UserError for invalid answers.
    """
    interview, front = Interview(machine, facts, known), Front(debconf)
    if again:
        for question in _asked():
            debconf.be_seen(question.name, False)
    if facts.owned:
        debconf.be_seen("in-cluster", False)
        debconf.put("high", "in-cluster")
        debconf.go()
        later = [question for question in QUESTIONS if question.later]
        answered = interview.walk(front, later, interview.known)
    else:
        answered = interview.walk(front)
    if answered is None:
        return None
    points = [f"no answer to {', '.join(front.unanswered)}"] if front.unanswered else []
    points += front.refused
    try:
        if not points:
            return interview.whole(answered)
    except SiteError as wrong:
        points = in_words(wrong.findings)
    raise UserError("debconf's answers are not a whole asha.conf:",
                    "nothing was written; asha configure asks the questions", points=points)
