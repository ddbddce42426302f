"""The words of docs/STYLE.md: what a person reads has none of the worst ones."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parents[2]

# Never right, whatever the sentence; docs/STYLE.md says what to say.
WORST = (
    r"\bmend(s|ed|ing)?\b", r"\bha(ve|s) parted\b", r"lets nobody in", r"being made the same",
    r"to be seen to", r"nobody knows what it", r"for ever and", r"\bhurried\b",
    r"stands? in the way",
    r"by the way the site", r"is not right\b", r"\bhand-over\b",
)
READ = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "debian/asha.templates",
        "debian/control", "agents", "asha", "cib", "docs")
# It names them.
STYLE = HERE / "docs/STYLE.md"


def texts() -> Iterator[Path]:
    for name in READ:
        place = HERE / name
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.is_file() and path != STYLE and path.suffix not in (".pyc", ".png"):
                yield path


@pytest.mark.parametrize("word", WORST)
def test_the_worst_words_are_nowhere(word: str) -> None:
    found = [
        f"{path.relative_to(HERE)}:{number}: {line.strip()}"
        for path in texts()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(word, line, re.IGNORECASE)
    ]
    assert found == [], "docs/STYLE.md says what to say"


def test_what_is_read_is_there() -> None:
    assert len(list(texts())) > 150
