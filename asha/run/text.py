"""Text that others had a hand in, made fit to be read: by a terminal, a log, Pacemaker.

The name of a file, what a program or another host said: any of it may hold the escape
sequences that a terminal obeys (ECMA-48), a newline that begins a line of ours, an
override that shows the rest of a line backwards (Unicode, UAX #9), or bytes that are no
text at all and cannot be written. All of that is shown as what it is: ``\\x1b``, ``\\n``,
``\\u202e``, ``\\udce9`` (the byte E9).

This is the only place with the rule. It is applied where text leaves ASHA, not where it
comes in: a file must be found by the name that it has.
"""

from __future__ import annotations

# Of a 64-bit number, less one, so that none is too large.
DIGITS_MOST = 18


def printable(text: str) -> str:
    """The text on one line, with only visible characters and blanks.

    Letters of all scripts stay. What Unicode calls control, format, surrogate, private,
    unassigned or separator (except the blank) is escaped.
    """
    if text.isprintable():
        return text
    return "".join([one if one.isprintable() else ascii(one)[1:-1] for one in text])


def lines(text: str) -> str:
    """Like ``printable``, but the text keeps its line breaks and tabs."""
    if text.isprintable():
        return text
    return "".join([one if one.isprintable() or one in "\n\t" else ascii(one)[1:-1]
                    for one in text])


def plain(text: str) -> str:
    """Printable, on one line, and ASCII alone: as many bytes as characters.

    For Pacemaker's XML, which takes the bytes for UTF-8 whatever locale wrote them.
    """
    if text.isascii():
        return printable(text)
    return "".join([one if one.isascii() and one.isprintable() else ascii(one)[1:-1]
                    for one in text])


def number(text: str) -> int | None:
    """The whole number that the text is, within what a machine may have meant; None for
    anything else.

    Python refuses to convert thousands of digits (ValueError), and accepts the digits of every
    script.
    """
    return int(text) if text.isdecimal() and text.isascii() and len(text) <= DIGITS_MOST else None
