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
    # Without what a generic class is given.
    assert [each.name for each in others if compiled & {ast.unparse(base).split("[")[0] for base in each.bases}] == []


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


def test_no_bound_of_a_slice_changes_anything() -> None:
    """Both are looked at first, and twice if what is cut is no list, tuple, string or bytes."""
    changing = (ast.NamedExpr, ast.Await)
    cuts = [node for node in nodes(ast.Slice, hot=True) if any(isinstance(each, changing) for each in ast.walk(node))]
    assert [ast.unparse(node) for node in cuts] == []


def test_no_field_of_a_dataclass_or_named_tuple_has_a_type_that_is_not_there_at_run_time() -> None:
    """The module could not be imported, or takes the interpreter down."""
    for path in HOT:
        guards = [node for node in ast.walk(TREES[path]) if isinstance(node, ast.If)]
        guarded = [each for node in guards if ast.unparse(node.test) == "TYPE_CHECKING" for each in node.body]
        imports = [node for node in guarded if isinstance(node, ast.ImportFrom)]
        missing = {alias.asname or alias.name for each in imports for alias in each.names} | {"object"}
        for node in ast.walk(TREES[path]):
            if isinstance(node, ast.ClassDef) and is_described_by_its_fields(node):
                fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
                assert [each for each in fields if missing & names_in(each.annotation)] == [], (path, node.name)


def is_described_by_its_fields(node: ast.ClassDef) -> bool:
    words = [ast.unparse(each) for each in (*node.decorator_list, *node.bases)]
    return any(word.startswith(("dataclass", "NamedTuple")) for word in words)


def names_in(annotation: ast.expr) -> set[str]:
    quoted = isinstance(annotation, ast.Constant) and isinstance(annotation.value, str)
    whole = ast.parse(str(ast.literal_eval(annotation)), mode="eval") if quoted else annotation
    return {node.id for node in ast.walk(whole) if isinstance(node, ast.Name)}
