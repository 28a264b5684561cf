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


def test_a_second_meaning_is_found(tmp_path: Path) -> None:
    """A private class counts as its public namesake."""
    (tmp_path / "one.py").write_text("class Queue: ...\n")
    (tmp_path / "two.py").write_text("class Other:\n    class _Queue: ...\n")

    assert len(classes_of(tmp_path)["Queue"]) == 2
