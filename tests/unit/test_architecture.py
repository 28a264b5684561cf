"""docs/architecture.md is a complete map of gateway/ and deployments/, and names what there is."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
GUIDE = (ROOT / "CONTRIBUTING.md").read_text()
ROW = re.compile(r"(?m)^\| `([\w/]+(?:\.py)?/?)` \| \S")
FILE = re.compile(r"`([\w/]+\.py)`")
NAME = re.compile(r"`([A-Z][a-z]+[A-Z]?\w*)[`.(]")
CLASS = re.compile(r"(?m)^class (\w+)")
EXAMPLE = "gateway/routing/policies/zone.py"


def chapter(root: str) -> str:
    """The part of the page on the packages of `root`."""
    return PAGE.partition(f"## Packages of `{root}/`")[2].partition("\n## ")[0]


def unnamed(root: Path, page: str) -> Iterator[str]:
    """Modules that have no row of their own and are in no package that has one."""
    named = {name.rstrip("/") for name in ROW.findall(page)}
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        packages = {parent.as_posix() for parent in relative.parents if parent.name}
        if path.name != "__init__.py" and not ({relative.as_posix()} | packages) & named:
            yield relative.as_posix()


@pytest.mark.parametrize("root", ["gateway", "deployments"])
def test_every_module_is_on_the_map(root: str) -> None:
    """Each module has a row, or belongs to a package that has one."""
    assert list(unnamed(ROOT / root, chapter(root))) == []


@pytest.mark.parametrize("page", [PAGE, GUIDE], ids=["architecture", "contributing"])
def test_every_file_that_a_page_names_exists(page: str) -> None:
    """Paths are from gateway/, from the chapter's own root, or from the repository's."""
    roots = [ROOT, ROOT / "gateway", ROOT / "deployments"]
    named = set(FILE.findall(page)) - {"app.py", EXAMPLE}
    assert named
    assert {name for name in named if not any((root / name).exists() for root in roots)} == set()


@pytest.mark.parametrize("page", [PAGE, GUIDE], ids=["architecture", "contributing"])
def test_every_class_that_a_page_names_exists(page: str) -> None:
    """The pages keep up when a class gets another name."""
    sources = [path for root in ("gateway", "deployments") for path in (ROOT / root).rglob("*.py")]
    known = {name for path in sources for name in CLASS.findall(path.read_text())}
    known |= {"Literal"}
    named = set(NAME.findall(page))
    assert named
    assert named - known == set()


def test_a_module_without_a_row_is_found(tmp_path: Path) -> None:
    """Top-level modules need a row of their own; those in a package do not."""
    for name in ("alone.py", "mapped.py", "package/part.py", "stray/part.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    page = "| `mapped.py` | one |\n| `package/` | many |\n"
    assert list(unnamed(tmp_path, page)) == ["alone.py", "stray/part.py"]


def test_every_word_of_the_glossary_stands_once() -> None:
    """In alphabetical order, each with a meaning."""
    glossary = PAGE.partition("## Glossary")[2]
    words = re.findall(r"(?m)^\| ([\w, ]+) \| .+ \|$", glossary)[1:]
    assert len(words) > 40
    assert words == sorted(set(words))
