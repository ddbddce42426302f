"""From the questions to an asha.conf: in a terminal (``ask``), or from a file of answers
(``complete``)."""

from __future__ import annotations

import ipaddress
import textwrap
from collections.abc import Callable

from asha import terminal
from asha.bootstrap.configure.context import Asking, Values, is_first, own_key
from asha.bootstrap.configure.questions import QUESTIONS, Question
from asha.bootstrap.host.facts import Facts, static_lan_address
from asha.cluster.site import KEYS, SiteError, site_of
from asha.machine import Machine

# What _derived() makes of the answers.
FOLLOWING = ("IP", "CLUSTERNET")
STANDARD = {key.name: key.default for key in KEYS}
YES, NO = ("true", "yes", "1"), ("false", "no", "0")


def ask(
    machine: Machine,
    facts: Facts,
    known: Values,
    read: Callable[[str], str] = terminal.answer,
    say: Callable[[str], None] = terminal.show,
) -> Values:
    """Ask a person, and return the values of a whole asha.conf.

    ``known`` are those of an earlier one: its answers are the defaults. Raises EOFError
    and KeyboardInterrupt as ``read`` does; nothing is written here.
    """
    answered: Values = {}
    for question in QUESTIONS:
        # An answer is judged by those before it. Those of an earlier time, of which some
        # will be corrected further on, only suggest.
        asking = Asking(machine, facts, answered)
        suggesting = Asking(machine, facts, _of_this_role(known, answered) | answered)
        default = question.default(suggesting)
        if question.when(suggesting):
            answered |= question.taken(asking, _one(question, asking, suggesting, read, say))
        elif default:
            answered |= question.taken(asking, default)
    kept = {key: value for key, value in _of_this_role(known, answered).items()
            if key not in FOLLOWING}
    nic = facts.nic(answered["LANNIC"])
    if nic and nic.addresses:
        kept.pop(own_key(answered, "LAN"), "")  # as it is now, not as it was
    return _derived(kept | answered, facts)


def _of_this_role(known: Values, answered: Values) -> Values:
    """What an earlier file says; without the nodes, where it was about the other role."""
    role = known.get("PRIMARY", "").lower() in YES
    if "PRIMARY" in answered and is_first(answered) != role:
        return {key: value for key, value in known.items() if "NODE" not in key}
    return dict(known)


def _one(
    question: Question,
    asking: Asking,
    suggesting: Asking,
    read: Callable[[str], str],
    say: Callable[[str], None],
) -> str:
    """Ask one question until the answer will do."""
    default = question.default(suggesting)
    say("")
    if question.help:
        say(textwrap.fill(question.help, terminal.COLUMNS, initial_indent="  ",
                          subsequent_indent="  "))
    for word, meaning in question.choices(suggesting):
        say(f"    {word}  {meaning}".rstrip())
    while True:
        prompt = f"{question.text} [{default}]: " if default else f"{question.text}: "
        answer = read(prompt).strip() or default
        if answer == "-" and question.optional:
            answer = ""
        reason = objection(question, asking, answer)
        if not reason:
            return answer
        say(f"  {reason}")


def objection(question: Question, asking: Asking, answer: str) -> str:
    """Why an answer, as it was typed, will not do; "" if it will."""
    words = [word for word, _ in question.choices(asking)]
    if question.answers is not None and answer not in words:
        return f"{answer or 'nothing'}: must be {' or '.join(words)}"
    if not answer:
        return "" if question.optional else "an answer is needed"
    before = _problems(asking.values)
    new = [one for one in _problems(asking.values | question.taken(asking, answer))
           if one not in before and " is missing: " not in one]
    if new:
        return "; ".join(new)
    reason = question.problem(asking, answer)
    return f"{answer} {reason}" if reason else ""


def _problems(values: Values) -> list[str]:
    try:
        site_of(values)
    except SiteError as wrong:
        return wrong.problems
    return []


def complete(machine: Machine, facts: Facts, given: Values) -> tuple[Values, list[str]]:
    """A whole asha.conf from answers in its own keys, and everything that is wrong.

    What is not given is taken from the machine where it can tell.
    """
    values = _normal({key: value for key, value in given.items() if value})
    if "PRIMARY" not in values:
        return values, ["PRIMARY is missing: true on the first node, false on the second"]
    for question in QUESTIONS:
        asking = Asking(machine, facts, values)
        if question.answers is None and question.key(asking) not in values:
            key = question.key(asking)
            default = question.default(asking) or STANDARD.get(key)
            if default:
                values[key] = default
    problems = _problems(values)
    problems += _machine_problems(Asking(machine, facts, values), problems)
    return (values if problems else _derived(values, facts)), problems


def _normal(values: Values) -> Values:
    """Spelt as the questions spell it. A file of 2014 may have its own node as A on both
    (asha.cluster.site)."""
    for key in ("PRIMARY", "USENIC1"):
        word = values.get(key, "").lower()
        if word:
            values[key] = "true" if word in YES else "false" if word in NO else word
    own, other = ("A", "B") if is_first(values) else ("B", "A")
    if values.get("IP") and values["IP"] == values.get(f"{other}NODEIP"):
        pairs = [(f"{own}NODE{what}", f"{other}NODE{what}") for what in ("NAME", "IP", "LAN")]
        changed = {a: values.get(b, "") for one in pairs for a, b in (one, one[::-1])}
        values = {key: value for key, value in (values | changed).items() if value}
    return values


def _machine_problems(asking: Asking, wrong: list[str]) -> list[str]:
    """What this machine has against answers that asha.conf's own rules allow."""
    found = []
    for question in QUESTIONS:
        key = question.key(asking)
        answer = asking.values.get(key, "")
        if key == "USENIC1":
            answer = "1" if asking.one_nic else "2"
        if answer and not any(one.startswith(f"{key}=") for one in wrong):
            reason = question.problem(asking, answer)
            if reason:
                found.append(f"{key}={asking.values.get(key, 'true')}: {reason}")
    return found


def _derived(values: Values, facts: Facts) -> Values:
    """With what follows from the answers.

    The other node's LAN address is learnt when it joins; one that is known is kept.
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
               if "=" in line and not line.lstrip().startswith("#")
               and line.partition("=")[0].strip() not in ours]
    if foreign:
        lines += ["", "# Not asha's, and kept", *foreign]
    return "\n".join(lines) + "\n"
