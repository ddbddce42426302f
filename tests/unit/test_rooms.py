"""The rooms of docs/design.md: small enough to hold in mind, and arrows one way."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parents[2]
ASHA = HERE / "asha"

# One module for each subcommand, as many as there are.
BY_NAME = ("commands",)
ROOM_MOST = 10

# Who may import whom, in the product: a room, and those below it. What stands at the top of
# asha/ (machine, rootwork, terminal, ...) is for all.
BELOW = {
    "run": (),
    "ocf": ("run",),
    "relay": ("ocf", "run"),
    "data": ("ocf", "run"),
    "asterisk": ("ocf", "run"),
    "lan": ("cluster", "ocf", "run"),
    "agents": ("asterisk", "data", "lan", "relay", "ocf", "run"),
    "cluster": ("relay", "run"),
    "fencing": ("cluster", "run"),
    "status": ("asterisk", "cluster", "data", "lan", "ocf", "run", "bootstrap"),
    "bootstrap": ("asterisk", "cluster", "data", "relay", "ocf", "run"),
    "commands": ("bootstrap", "status", "agents", "asterisk", "cluster", "data", "run"),
}
BOOTSTRAP = {
    "console": (),
    "host": (),
    "action": ("host",),
    "firewall": ("host", "action"),
    "takeover": ("host", "action"),
    "steps": ("takeover", "host", "action"),
    "facts": ("steps", "firewall", "host"),
    "join": ("facts", "steps", "host", "action"),
    "preflight": ("facts", "steps", "host"),
    "configure": ("facts", "preflight", "host"),
    "plan": ("facts", "steps", "firewall", "join", "takeover", "action"),
}


def imported(path: Path) -> set[str]:
    """The modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return found


def arrows(top: Path, package: str, rooms: dict[str, tuple[str, ...]]) -> list[str]:
    """Those that go where none may."""
    wrong = []
    for path in top.rglob("*.py"):
        room = path.relative_to(top).parts[0].removesuffix(".py")
        for name in imported(path) if room in rooms else ():
            if name.startswith(f"{package}."):
                other = name.removeprefix(f"{package}.").split(".")[0]
                if other in rooms and other != room and other not in rooms[room]:
                    wrong.append(f"{path.relative_to(HERE)} imports {name}")
    return sorted(wrong)


@pytest.mark.parametrize(("top", "package", "rooms"), [
    (ASHA, "asha", BELOW), (ASHA / "bootstrap", "asha.bootstrap", BOOTSTRAP),
])
def test_arrows_go_one_way(top: Path, package: str, rooms: dict[str, tuple[str, ...]]) -> None:
    assert {path.name for path in top.iterdir() if (path / "__init__.py").exists()} <= set(rooms)
    assert arrows(top, package, rooms) == []


def circle(top: Path) -> list[str]:
    """Modules that import each other, late imports and those for types among them."""
    modules = {".".join(path.relative_to(top.parent).with_suffix("").parts)
               .removesuffix(".__init__"): path for path in top.rglob("*.py")}
    left = {name: {one if one in modules else one.rpartition(".")[0] for one in imported(path)}
            & modules.keys() - {name} for name, path in modules.items()}
    while leaves := {name for name, used in left.items() if used.isdisjoint(left)}:
        left = {name: used for name, used in left.items() if name not in leaves}
    return sorted(left)


def test_no_modules_import_each_other() -> None:
    assert circle(ASHA) == []


def test_a_circle_of_late_imports_is_seen(tmp_path: Path) -> None:
    top = tmp_path / "top"
    (top / "room").mkdir(parents=True)
    (top / "room/__init__.py").write_text("")
    (top / "one.py").write_text("from top.room import two\n")
    (top / "room/two.py").write_text("def f():\n    from top.one import x\n")
    (top / "three.py").write_text("import os\n")
    assert circle(top) == ["top.one", "top.room.two"]
    (top / "room/two.py").write_text("")
    assert circle(top) == []


def test_an_arrow_that_goes_up_is_seen() -> None:
    assert arrows(ASHA, "asha", {**BELOW, "agents": ()}) != []


def test_no_room_is_too_big_to_hold_in_mind() -> None:
    for room in [ASHA, *(path.parent for path in ASHA.rglob("__init__.py"))]:
        modules = [path for path in room.glob("*.py") if path.name != "__init__.py"]
        assert room.name in BY_NAME or len(modules) <= ROOM_MOST, f"{room}: {len(modules)}"


IMPORT = re.compile(r"^\s*from (asha[\w.]*) import ([\w, ]+)$", re.MULTILINE)


def test_code_that_tests_carry_to_nodes_imports_what_is_there() -> None:
    """It is text to the linters."""
    wrong, seen = [], 0
    for path in sorted((HERE / "tests").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        texts = [node.value for node in ast.walk(tree)
                 if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        for module, names in IMPORT.findall("\n".join(texts)):
            seen += 1
            for name in names.split(","):
                name = name.split(" as ")[0].strip()
                try:
                    has = hasattr(import_module(module), name)
                    has = has or find_spec(f"{module}.{name}") is not None
                except ModuleNotFoundError:
                    has = False
                if not has:
                    wrong.append(f"{path.relative_to(HERE)}: from {module} import {name}")
    assert wrong == []
    assert seen > 10
