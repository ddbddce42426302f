"""asha.ocf.metadata: the whole document, word for word, and what it must never hold.

Whether it is valid by Debian's schemas is asked in tests/conformance, where they are.
"""

from __future__ import annotations

import io
from pathlib import Path
from xml.etree import ElementTree

import pytest

from asha.ocf import Agent, Choice, Context, Duration, Exit, Integer, String, action, main
from asha.ocf.metadata import render
from tests.unit.ocf_sample import Plain, Promotable

GOLDEN = Path(__file__).with_name("ocf_sample.xml")


def parsed(agent: type[Agent]) -> ElementTree.Element:
    return ElementTree.fromstring(render(agent))


def test_the_sample_word_for_word() -> None:
    # After a change that is meant, write render(Plain) there and read the difference.
    assert render(Plain) == GOLDEN.read_text(encoding="ascii")


def test_it_is_what_meta_data_prints() -> None:
    out = io.StringIO()
    assert main(Plain, ["meta-data"], Context({}, out=out)) == 0
    assert out.getvalue() == render(Plain)


def test_every_text_is_read_back_as_it_was_written() -> None:
    root = parsed(Plain)
    assert root.findtext("shortdesc") == "A resource that is a file <&>"
    long = root.findtext("longdesc")
    assert long is not None
    assert long.strip() == (
        'It runs while the file exists. "Quotes", <tags> & ampersands\n'
        "are text here, and so is é.\n"
        "\n"
        "    Indented lines stay so."
    )
    assert root.findtext("parameters/parameter[@name='motto']/longdesc") == (
        '\nAny text, such as <a> & "b".\n'
    )
    content = root.find("parameters/parameter[@name='motto']/content")
    assert content is not None
    assert content.get("default") == '<&">\n'


def test_it_is_ascii_so_that_no_locale_breaks_it() -> None:
    assert render(Plain).isascii()


def test_parameters() -> None:
    found = {one.get("name"): one for one in parsed(Plain).iter("parameter")}
    assert list(found) == list(Plain.parameters)
    file = found["file"]
    assert (file.get("required"), file.get("unique")) == ("1", "1")
    assert (found["port"].get("required"), found["port"].get("unique")) == ("0", "0")
    content = {name: one.find("content") for name, one in found.items()}
    types = {name: None if one is None else one.get("type") for name, one in content.items()}
    assert types == {
        "file": "string",
        "mode": "string",
        "port": "integer",
        "room": "integer",
        "patience": "string",
        "noisy": "boolean",
        "motto": "string",
        "hint": "string",
    }
    assert content["file"] is not None
    assert content["file"].get("default") is None
    assert content["port"] is not None
    assert content["port"].get("default") == "5060"


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        ("mode", "One of: slow, fast."),
        ("port", "A whole number from 1024 to 65535."),
        ("room", "A whole number from 0 upwards (MiB)."),
        ("patience", "A time such as 500ms, 10s or 2min; a bare number is seconds."),
    ],
)
def test_what_the_schema_has_no_words_for_is_told(name: str, limits: str) -> None:
    long = parsed(Plain).findtext(f"parameters/parameter[@name='{name}']/longdesc")
    assert long is not None
    assert long.strip().endswith(limits)


def test_actions() -> None:
    found = [dict(one.attrib) for one in parsed(Promotable).iter("action")]
    assert found == [
        {"name": "start", "timeout": "20s"},
        {"name": "stop", "timeout": "30s"},
        {
            "name": "monitor",
            "timeout": "20s",
            "interval": "10s",
            "depth": "0",
            "role": "Unpromoted",
        },
        {"name": "monitor", "timeout": "20s", "interval": "11s", "depth": "0", "role": "Promoted"},
        {"name": "promote", "timeout": "15s"},
        {"name": "demote", "timeout": "15s"},
        {"name": "meta-data", "timeout": "5s"},
        {"name": "validate-all", "timeout": "20s"},
    ]


def test_an_action_that_the_class_declares_itself_is_there_once() -> None:
    class Own(Plain):
        @action(timeout=7)
        def validate_all(self) -> None:
            pass

    found = [one for one in parsed(Own).iter("action") if one.get("name") == "validate-all"]
    assert [one.get("timeout") for one in found] == ["7s"]


def test_a_short_docstring_serves_as_both() -> None:
    class Short(Plain):
        """All there is to say."""

    root = parsed(Short)
    assert root.findtext("shortdesc") == "All there is to say."
    assert root.findtext("longdesc") == "\nAll there is to say.\n"


def test_only_words_that_every_schema_knows() -> None:
    # The DTD has no unique-group, reloadable or reload-agent; the RNG no time.
    class Everything(Promotable):
        """Everything at once."""

        other = Choice("Other", choices=("a",), default="a", long="Long")
        count = Integer("Count", default=1)
        pause = Duration("Pause", default="1s")
        text = String("Text", unique=True)

    root = parsed(Everything)
    assert root.findtext("version") == "1.0"
    assert [child.tag for child in root] == [
        "version",
        "longdesc",
        "shortdesc",
        "parameters",
        "actions",
    ]
    attributes = {name for one in root.iter("parameter") for name in one.attrib}
    assert attributes == {"name", "required", "unique"}
    types = {one.get("type") for one in root.iter("content")}
    assert types <= {"string", "integer", "boolean"}
    assert {one.get("role") for one in root.iter("action")} == {None, "Promoted", "Unpromoted"}


def test_exit_is_not_needed_to_describe() -> None:
    # Describing an agent never runs one: no parameter, no environment.
    class Fussy(Plain):
        """Cannot even be made."""

        def __init__(self, *arguments: object) -> None:
            raise AssertionError("was made")

        @action(timeout=20)
        def monitor(self) -> Exit:
            raise AssertionError("was run")

    assert main(Fussy, ["meta-data"], Context({}, out=io.StringIO())) == 0
