"""A manual page from an agent's metadata: XML on stdin, roff (man(7)) on stdout.

Run when the package is built, so that the page and ``crm ra info`` never differ.
"""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ElementTree

# A word that a line may start with and man would take for a request, or a hyphen
# that it would print as a typographical one.
ESCAPES = {ord("\\"): r"\e", ord("-"): r"\-"}


def page(xml: str, provider: str = "asha") -> str:
    """Raises ElementTree.ParseError for what is not XML."""
    agent = ElementTree.fromstring(xml)
    name = f"ocf:{provider}:{agent.get('name')}"
    title = name.replace(":", "_").upper()
    lines = [
        rf'.TH "{roff(title)}" 7 "" "ASHA {agent.get("version")}" "OCF resource agents"',
        ".nh",
        ".ad l",
        ".SH NAME",
        rf"{roff(name.replace(':', '_'))} \- {roff(_text(agent, 'shortdesc').rstrip('.'))}",
        ".SH SYNOPSIS",
        rf"\fBcrm configure primitive\fR \fIID\fR \fB{roff(name)}\fR"
        r" [\fBparams\fR \fINAME\fR=\fIVALUE\fR ...]",
        ".SH DESCRIPTION",
        *_paragraphs(_text(agent, "longdesc")),
        ".SH PARAMETERS",
    ]
    for parameter in agent.iterfind("parameters/parameter"):
        lines += _parameter(parameter)
    lines += [
        ".SH ACTIONS",
        "The least timeouts that make sense, and for monitors intervals. Of monitors at",
        "several depths the deeper one does all that the others do. What is recommended, and",
        r"why, is in \fI/usr/share/asha/asha.crm\fR.",
    ]
    for action in agent.iterfind("actions/action"):
        lines += _action(action)
    lines += [".SH SEE ALSO", r".BR asha (8),", r".BR asha.conf (5),", r".BR crm (8)", ""]
    return "\n".join(lines)


def roff(text: str) -> str:
    """The text, escaped so that it is printed as it stands."""
    escaped = text.translate(ESCAPES)
    return rf"\&{escaped}" if escaped[:1] in (".", "'") else escaped


def _text(element: ElementTree.Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _paragraphs(text: str) -> list[str]:
    lines: list[str] = []
    for paragraph in re.split(r"\n[^\S\n]*\n", text):
        said = [roff(line) for line in paragraph.splitlines()]
        if all(line.startswith(" ") for line in said):
            # A table: as it stands, and from the left edge, for it may be 78 columns wide.
            lines += [".PP", ".in 0", ".nf", *said, ".fi", ".in"]
        else:
            lines += [".PP", *said]
    return lines[1:]


def _parameter(parameter: ElementTree.Element) -> list[str]:
    content = parameter.find("content")
    kind = "" if content is None else content.get("type", "")
    default = None if content is None else content.get("default")
    about = [kind]
    if parameter.get("required") == "1":
        about.append("required")
    first, *rest = re.split(r"\n\s*\n", _text(parameter, "longdesc"))
    lines = [
        ".TP",
        rf"\fB{roff(parameter.get('name', ''))}\fR ({roff(', '.join(about))})",
        rf"{roff(_text(parameter, 'shortdesc'))}.",
        *(roff(line) for line in first.splitlines()),
    ]
    for paragraph in rest:
        lines += [".IP", *(roff(line) for line in paragraph.splitlines())]
    if default:
        lines += [".IP", f"Default: {roff(default)}"]
    return lines


def _action(action: ElementTree.Element) -> list[str]:
    about = [
        f"{word} {action.get(key)}"
        for word, key in (("timeout", "timeout"), ("interval", "interval"),
                          ("OCF_CHECK_LEVEL", "depth"), ("role", "role"))
        if action.get(key) is not None
    ]
    return [".TP", rf"\fB{roff(action.get('name', ''))}\fR", roff(", ".join(about))]


if __name__ == "__main__":
    sys.stdout.write(page(sys.stdin.read()))
