"""Names in the source tree: each class name has one meaning."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("gateway", "deployments", "loadtests")


def classes_of(*roots: Path) -> dict[str, list[str]]:
    """Class names without their leading underscores, and the files that define them."""
    found = defaultdict(list)
    for path in sorted(path for root in roots for path in root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                found[node.name.lstrip("_")].append(str(path))
    return found


def test_every_class_name_has_one_meaning() -> None:
    """No two modules define a class of the same name, private ones included."""
    classes = classes_of(*(ROOT / package for package in PACKAGES))

    assert len(classes) > 300
    assert {name: files for name, files in classes.items() if len(files) > 1} == {}


def defined_twice(*roots: Path) -> list[str]:
    """Names that a module defines a second time, at its top level, each with its place."""
    found = []
    for path in sorted(path for root in roots for path in root.rglob("*.py")):
        seen: set[str] = set()
        for node in ast.parse(path.read_text()).body:
            for name in _names_of(node):
                if name in seen:
                    found.append(f"{path.name}:{node.lineno}: {name}")
                seen.add(name)
    return found


def _names_of(node: ast.stmt) -> list[str]:
    match node:
        case ast.Assign():
            targets = [t for each in node.targets for t in getattr(each, "elts", [each])]
            return [target.id for target in targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            is_overload = any(ast.unparse(each) == "overload" for each in node.decorator_list)
            return [] if is_overload else [node.name]
    return []


def test_no_module_defines_a_name_twice() -> None:
    """The second definition would silently replace the first."""
    assert defined_twice(*(ROOT / package for package in PACKAGES)) == []


def test_a_second_definition_is_found(tmp_path: Path) -> None:
    """Whatever kind the two are of."""
    (tmp_path / "one.py").write_text("A, B = 1, 2\n\ndef A(): ...\n\nB: int = 3\n")

    assert defined_twice(tmp_path) == ["one.py:3: A", "one.py:5: B"]


def test_a_second_meaning_is_found(tmp_path: Path) -> None:
    """A private class counts as its public namesake."""
    (tmp_path / "one.py").write_text("class Queue: ...\n")
    (tmp_path / "two.py").write_text("class Other:\n    class _Queue: ...\n")

    assert len(classes_of(tmp_path)["Queue"]) == 2
