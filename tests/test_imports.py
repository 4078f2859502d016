"""The shape of the tree: who may import whom, what the pure folders keep away from, and what core never carries."""

import ast
import functools
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("parsers", "policies", "sidecar")
MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
PURE = [path for path in MODULES if path.relative_to(ROOT).parts[0] != "sidecar"]

BELOW = {"parsers": set[str](), "policies": {"parsers"}, "sidecar": {"parsers", "policies"}}
"""Folder -> the folders of ours that it may import."""

HARMLESS = {
    *("array", "bisect", "collections", "collections.abc", "csv", "dataclasses", "datetime", "difflib", "enum"),
    "fractions",
    *(
        "functools",
        "email.message",
        "email.utils",
        "hashlib",
        "heapq",
        "hmac",
        "html",
        "ipaddress",
        "itertools",
        "json",
        "math",
        "operator",
        "re",
        "statistics",
    ),
    *("string", "textwrap", "tomllib", "types", "typing", "unicodedata", "urllib.parse"),
    *("binascii", "struct", "xml.parsers", "zlib"),
    *("publicsuffixlist", "pyparsing"),
}
"""What the pure folders may import from elsewhere: it neither waits, nor reads a clock, nor throws dice."""
HARMLESS_NAMES = {
    "sys": {"intern"},
    "codecs": {"getincrementaldecoder"},
    "email.utils": {"parsedate_tz"},
    "mypy_extensions": {"i64"},  # a name for the type checker and the compiler alone
}
"""Modules of which only these names are harmless."""

TOUCHING = {"open", "print", "input", "exec", "eval", "breakpoint", "__import__"}
TOUCHING_METHODS = {
    *("now", "utcnow", "today"),
    *("read_text", "read_bytes", "write_text", "write_bytes", "unlink", "mkdir"),
}
"""Calls by which files, terminals and clocks get in without an import."""

NAMELESS = {"util", "utils", "helper", "helpers", "common", "misc", "manager", "managers", "base", "tools"}
"""Names for what has no name: call it what it is, or put it where it is used."""

HEAVY = {
    "pandas",
    "numpy",
    "requests",
    "urllib3",
    "http.client",
    "prometheus_client",
    "rich",
    "dns",
    "redis",
    "starlette",
    "uvicorn",
}
"""What slows a start, fills memory or talks to the world: only for outside, reports and people."""

CONTENTS = ("parsers/postfix", "sidecar/lab/drills")
"""Packages whose __init__ is a table of contents."""


def module_name(path: Path) -> str:
    """parsers/postfix/__init__.py is parsers.postfix."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@functools.cache
def syntax(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """(module, name) of each import; name is "" where the module itself is imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative imports hide where a thing comes from"
            yield from ((node.module or "", alias.name) for alias in node.names)


def upward(tree: ast.AST, folder: str) -> list[str]:
    """Imports of a module in `folder` that go the wrong way."""
    forbidden = {*FOLDERS, "tests", "benchmarks"} - BELOW[folder] - {folder}
    return [module for module, _ in imported(tree) if module.partition(".")[0] in forbidden]


def waiting(tree: ast.AST) -> list[str]:
    """Imports of what is not known to be harmless."""
    return [
        f"{module} {name}"
        for module, name in imported(tree)
        if module.partition(".")[0] not in FOLDERS
        and module not in HARMLESS
        and name not in HARMLESS_NAMES.get(module, ())
    ]


def touching(tree: ast.AST) -> list[str]:
    """Calls that reach a file, a terminal or a clock."""
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    names = [
        f"{call.id}() in line {call.lineno}" for call in calls if isinstance(call, ast.Name) and call.id in TOUCHING
    ]
    return names + [
        f".{call.attr}() in line {call.lineno}"
        for call in calls
        if isinstance(call, ast.Attribute) and call.attr in TOUCHING_METHODS
    ]


def test_there_is_something_to_look_at() -> None:
    assert len(PURE) > 10
    assert len(MODULES) - len(PURE) > 10


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_go_from_sidecar_to_policies_to_parsers(path: Path) -> None:
    assert upward(syntax(path), path.relative_to(ROOT).parts[0]) == []


@pytest.mark.parametrize("path", PURE, ids=module_name)
def test_pure_modules_neither_wait_nor_touch_anything(path: Path) -> None:
    assert waiting(syntax(path)) == []
    assert touching(syntax(path)) == []


@pytest.mark.parametrize(
    "code",
    [
        "import os",
        "import time",
        "import datetime, socket",
        "import sys",
        "from sys import stdin",
        "def later():\n    from random import random",
        "if True:\n    import asyncio.events",
        "from logging import getLogger",
    ],
)
def test_the_guard_sees_what_waits(code: str) -> None:
    assert waiting(ast.parse(code)) != []


@pytest.mark.parametrize(
    "code",
    ["open('x')", "[print(x) for x in y]", "datetime.now()", "datetime.datetime.now(tz=UTC)", "path.read_text()"],
)
def test_the_guard_sees_what_touches(code: str) -> None:
    assert touching(ast.parse(code)) != []


@pytest.mark.parametrize(
    ("folder", "code"),
    [
        ("parsers", "import policies"),
        ("parsers", "from policies.key import Key"),
        ("parsers", "from sidecar import config"),
        ("policies", "import sidecar.config"),
        ("policies", "import tests.world"),
        ("sidecar", "from tests.world import World"),
        ("sidecar", "import benchmarks.ramp"),
    ],
)
def test_the_guard_sees_the_wrong_way(folder: str, code: str) -> None:
    assert upward(ast.parse(code), folder) != []


def test_no_imports_in_a_circle() -> None:
    """Between our modules as they are imported at the start; graphlib names the circle."""
    names = {module_name(path) for path in MODULES}
    graph = {}
    for path in MODULES:
        top = ast.Module([node for node in syntax(path).body if isinstance(node, ast.Import | ast.ImportFrom)], [])
        found = {f"{module}.{name}" if f"{module}.{name}" in names else module for module, name in imported(top)}
        graph[module_name(path)] = found & names
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_names_say_something(path: Path) -> None:
    classes = [node.name for node in ast.walk(syntax(path)) if isinstance(node, ast.ClassDef)]

    assert not set(module_name(path).split(".")) & NAMELESS
    assert [name for name in classes if name.lower() in NAMELESS or name.endswith(("Manager", "Utils", "Mixin"))] == []


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_every_module_says_what_it_knows(path: Path) -> None:
    text = ast.get_docstring(syntax(path)) or ""
    assert len(text.split()) >= 5


@pytest.mark.parametrize("package", CONTENTS)
def test_tables_of_contents_are_complete(package: str) -> None:
    """Each module of the package is imported by its table, or by a module of the package that stands on it.

    That what was imported is also in the table, the linter says: an unused import is an error.
    """
    modules = {module_name(path) for path in (ROOT / package).glob("*.py")}
    used = {
        each
        for path in (ROOT / package).glob("*.py")
        for module, name in imported(syntax(path))
        for each in (module, f"{module}.{name}")
    }

    assert len(modules) > 1
    assert modules - used - {package.replace("/", ".")} == set()


def heavy_imports_of(module: str) -> set[str]:
    code = f"import sys, {module}; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return HEAVY & set(ran.stdout.split())


@pytest.mark.parametrize(
    "module", ["sidecar.core", "sidecar.queue_helper", "sidecar.failsafe", "sidecar.supervise", "sidecar.cli"]
)
def test_who_serves_postfix_carries_nothing_heavy(module: str) -> None:
    assert heavy_imports_of(module) == set()


def test_the_guard_sees_what_is_heavy() -> None:
    assert heavy_imports_of("sidecar.outside") >= {"prometheus_client", "dns"}
