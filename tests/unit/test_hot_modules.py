"""What the compiler of hot modules takes without a word and then does otherwise; the rest it says itself."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import hot_modules

Node = TypeVar("Node", bound=ast.AST)
ROOT = Path(__file__).parent.parent.parent
HOT = frozenset(hot_modules.HOT_MODULES)
TREES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / "kpy").rglob("*.py"))
}


def nodes(kind: type[Node], *, hot: bool) -> Iterator[Node]:
    for path, tree in TREES.items():
        if (path in HOT) == hot:
            yield from (node for node in ast.walk(tree) if isinstance(node, kind))


def test_the_modules_exist() -> None:
    assert set(TREES) >= HOT


def test_no_other_module_inherits_from_their_classes() -> None:
    """It would be refused when the first object is made."""
    compiled = {node.name for node in nodes(ast.ClassDef, hot=True)}
    others = nodes(ast.ClassDef, hot=False)
    assert [node.name for node in others if compiled & {ast.unparse(base) for base in node.bases}] == []


def test_no_function_catches_different_errors_under_one_name() -> None:
    """The name has the type of the first of them, and the second one would be refused."""
    several: list[str] = []
    for kind in (ast.FunctionDef, ast.AsyncFunctionDef):
        for function in nodes(kind, hot=True):
            handlers = [node for node in ast.walk(function) if isinstance(node, ast.ExceptHandler) and node.name]
            caught = {(handler.name, ast.unparse(handler.type)) for handler in handlers if handler.type}
            if len(caught) > len({name for name, _ in caught}):
                several.append(function.name)
    assert several == []
