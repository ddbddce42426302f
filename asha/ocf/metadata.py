"""An agent's metadata as XML, generated from what its class declares.

Written for the strictest reader of each part: ra-api-1.dtd (what ocf-tester
checks with) and metadata.rng, both of Debian's resource-agents 4.12 and 4.16,
where they are the same files, and the ocf-1.0.rng of pcs. Together they leave
the content types string, integer and boolean (``time`` is only in the DTD,
``second`` and ``select`` only in the RNG) and the roles Promoted and Unpromoted
(the RNG refuses Master and Slave). OCF 1.1's unique-group, reloadable and
reload-agent are not in the DTD.
"""

from __future__ import annotations

import textwrap

from asha.ocf.action import PLAIN_TIMEOUT, UNDECLARED_TIMEOUT, ActionSpec
from asha.ocf.params import Choice, Duration, Integer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Protocol

    from asha.ocf.params import Parameter

    class Declared(Protocol):
        """A class of agents, as far as its description goes."""

        __doc__: str | None
        name: str
        version: str

        @property
        def parameters(self) -> Mapping[str, Parameter]: ...
        @property
        def actions(self) -> Sequence[ActionSpec]: ...
        def appendix(self) -> str: ...

# By hand, because xml.sax.saxutils brings in urllib: 40 ms. Line ends and tabs
# in an attribute are read back as spaces unless they are written as references.
TEXT = {ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;"}
ATTRIBUTE = TEXT | {
    ord('"'): "&quot;",
    ord("\t"): "&#9;",
    ord("\n"): "&#10;",
    ord("\r"): "&#13;",
}


def render(agent_class: Declared) -> str:
    """The whole document, in ASCII: valid whatever locale stdout has."""
    short, long = _descriptions(agent_class)
    lines = [
        '<?xml version="1.0"?>',
        '<!DOCTYPE resource-agent SYSTEM "ra-api-1.dtd">',
        _open("resource-agent", name=agent_class.name, version=agent_class.version),
        "<version>1.0</version>",
        *_described(long, short),
        "<parameters>",
    ]
    for name, parameter in agent_class.parameters.items():
        lines += _parameter(name, parameter)
    lines += ["</parameters>", "<actions>"]
    lines += [_action(spec) for spec in _advertised(agent_class)]
    lines += ["</actions>", "</resource-agent>", ""]
    return "\n".join(lines).encode("ascii", "xmlcharrefreplace").decode("ascii")


def _descriptions(agent_class: Declared) -> tuple[str, str]:
    """The docstring's first line, and the rest without its indentation, with the appendix."""
    first, _, rest = (agent_class.__doc__ or agent_class.name).strip().partition("\n")
    long = textwrap.dedent(rest).strip() or first
    return first, "\n\n".join(part for part in (long, agent_class.appendix()) if part)


def _advertised(agent_class: Declared) -> list[ActionSpec]:
    declared = list(agent_class.actions)
    for spec in (
        ActionSpec("meta-data", PLAIN_TIMEOUT),
        ActionSpec("validate-all", UNDECLARED_TIMEOUT),
    ):
        if spec.name not in {other.name for other in declared}:
            declared.append(spec)
    return declared


def _parameter(name: str, parameter: Parameter) -> list[str]:
    limits = _limits(parameter)
    long = f"{parameter.long}\n\n{limits}" if limits else parameter.long
    return [
        _open(
            "parameter",
            name=name,
            unique=str(int(parameter.unique)),
            required=str(int(parameter.required)),
        ),
        *_described(long, parameter.short),
        _open("content", end=" />", type=parameter.content_type, default=parameter.default),
        "</parameter>",
    ]


def _limits(parameter: Parameter) -> str:
    """What the schema has no element for: choices, range and unit."""
    if isinstance(parameter, Choice):
        return f"One of: {', '.join(parameter.choices)}."
    if isinstance(parameter, Integer):
        unit = f" ({parameter.unit})" if parameter.unit else ""
        return f"A whole number {parameter.span}{unit}."
    if isinstance(parameter, Duration):
        return "A time such as 500ms, 10s or 2min; a bare number is seconds."
    return ""


def _action(spec: ActionSpec) -> str:
    return _open(
        "action",
        end=" />",
        name=spec.name,
        timeout=f"{spec.timeout}s",
        interval=None if spec.interval is None else f"{spec.interval}s",
        depth=None if spec.depth is None else str(spec.depth),
        role=spec.role,
    )


def _described(long: str, short: str) -> list[str]:
    return [
        f'<longdesc lang="en">\n{long.translate(TEXT)}\n</longdesc>',
        f'<shortdesc lang="en">{short.translate(TEXT)}</shortdesc>',
    ]


def _open(tag: str, end: str = ">", **attributes: str | None) -> str:
    """A tag with those attributes that have a value."""
    given = [
        f' {name}="{value.translate(ATTRIBUTE)}"'
        for name, value in attributes.items()
        if value is not None
    ]
    return f"<{tag}{''.join(given)}{end}"
