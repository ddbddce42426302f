"""asha.ocf.params: what each type takes, refuses, and how it says so."""

from __future__ import annotations

import pytest

from asha.ocf.params import Boolean, Choice, Duration, Integer, Parameter, Path, String
from asha.run.results import BadConfig


class Holder:
    """Stands in for an agent: all a descriptor needs is an environment."""

    word = String("word", default="hello")
    bare = String("bare")
    needed = String("needed", required=True)
    choice = Choice("choice", choices=("rhino", "numato"), default="rhino")
    path = Path("path", default="/drbd")
    number = Integer("number", default=5, least=1, most=9, unit="seconds")
    zero = Integer("zero", default=0, most=0)
    below = Integer("below", default=0, least=-5)
    switch = Boolean("switch", default=True)
    wait = Duration("wait", default="10s")

    def __init__(self, **given: str) -> None:
        self.environ = {f"OCF_RESKEY_{key}": value for key, value in given.items()}


def test_defaults() -> None:
    holder = Holder()
    assert holder.word == "hello"
    assert holder.bare == ""
    assert holder.choice == "rhino"
    assert holder.path == "/drbd"
    assert holder.number == 5
    assert holder.switch is True
    assert holder.wait == 10.0


def test_an_empty_value_is_the_default() -> None:
    assert Holder(number="", word="  ").number == 5
    assert Holder(word="  ").word == "hello"


def test_a_required_parameter_has_no_default() -> None:
    with pytest.raises(BadConfig, match="parameter needed is required"):
        _ = Holder().needed
    with pytest.raises(BadConfig, match="parameter needed is required"):
        _ = Holder(needed=" ").needed
    assert Holder(needed="x").needed == "x"
    with pytest.raises(TypeError):
        String("both", default="x", required=True)


def test_only_the_parameter_that_is_read_is_parsed() -> None:
    holder = Holder(number="many")
    assert holder.word == "hello"
    with pytest.raises(BadConfig):
        _ = holder.number


@pytest.mark.parametrize("text", ["1", "9", "+3", " 4 "])
def test_integers(text: str) -> None:
    assert Holder(number=text).number == int(text)


@pytest.mark.parametrize("text", ["0", "10", "-1", "99999999999999999999"])
def test_integers_out_of_range_say_the_range(text: str) -> None:
    with pytest.raises(BadConfig, match=r'number="-?\d+": must be from 1 to 9 seconds'):
        _ = Holder(number=text).number


@pytest.mark.parametrize("text", ["abc", "1.5", "1_0", "٣", "0x5", "1 2", "5s", "9" * 5000])
def test_what_is_no_whole_number(text: str) -> None:
    with pytest.raises(BadConfig, match="must be a whole number"):
        _ = Holder(number=text).number


def test_a_range_may_end_at_zero_or_begin_below_it() -> None:
    with pytest.raises(BadConfig, match="must be from 0 to 0"):
        _ = Holder(zero="1").zero
    assert Holder(below="-5").below == -5
    with pytest.raises(BadConfig, match="must be from -5 upwards"):
        _ = Holder(below="-6").below


@pytest.mark.parametrize("text", ["1", "y", "yes", "YES", "true", "True", "on", "On"])
def test_yes(text: str) -> None:
    assert Holder(switch=text).switch is True


@pytest.mark.parametrize("text", ["0", "n", "no", "false", "FALSE", "off"])
def test_no(text: str) -> None:
    assert Holder(switch=text).switch is False


@pytest.mark.parametrize("text", ["maybe", "2", "ja?"])
def test_neither_yes_nor_no(text: str) -> None:
    with pytest.raises(BadConfig, match="must be true or false"):
        _ = Holder(switch=text).switch


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3", 3),
        ("0.5", 0.5),
        ("500ms", 0.5),
        ("500 msec", 0.5),
        ("10s", 10),
        ("10 sec", 10),
        ("2m", 120),
        ("2min", 120),
        ("1h", 3600),
        ("1hr", 3600),
        ("2MIN", 120),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert Holder(wait=text).wait == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["soon", "-1s", "1d", "s", ".", "1.2.3s", "1e3", "inf", "nan", "²"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(BadConfig, match="must be a time such as 500ms, 10s or 2min"):
        _ = Holder(wait=text).wait


@pytest.mark.parametrize("text", ["0", "0.0ms", "501h", "9" * 400])
def test_durations_that_nobody_means(text: str) -> None:
    with pytest.raises(BadConfig, match="more than nothing and at most"):
        _ = Holder(wait=text).wait


def test_choices() -> None:
    assert Holder(choice="numato").choice == "numato"
    with pytest.raises(BadConfig, match='choice="Rhino": must be one of rhino, numato'):
        _ = Holder(choice="Rhino").choice
    with pytest.raises(TypeError):
        Choice("choice", choices=("a",), default="b")


@pytest.mark.parametrize("text", ["/", "/drbd", "/opt/sark/db", "/a b", "/...", "/é"])
def test_paths(text: str) -> None:
    assert Holder(path=text).path == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("drbd", "must be an absolute path"),
        ("../drbd", "must be an absolute path"),
        ("/drbd/../etc", "must not contain . or .."),
        ("/drbd/.", "must not contain . or .."),
        ("/drbd/", "must not contain // or end in /"),
        ("//drbd", "must not contain // or end in /"),
        ("/dr\nbd", "must not contain control characters"),
    ],
)
def test_paths_that_are_refused(text: str, problem: str) -> None:
    with pytest.raises(BadConfig, match="path=") as raised:
        _ = Holder(path=text).path
    assert problem in raised.value.reason


@pytest.mark.parametrize("kind", [Boolean, Choice, Duration, Integer, Path, String])
def test_content_types_are_those_of_both_schemas(kind: type[Parameter]) -> None:
    assert kind.content_type in ("string", "integer", "boolean")
