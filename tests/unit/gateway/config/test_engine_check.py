"""What vLLM itself says of arguments: asked once, kept in a file, and put at the right field."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from gateway.config.engine_check import EngineCheck, cache_file, engine_mistakes, located
from gateway.config.loader import parse_entry
from gateway.config.vllm import VllmEntry


def check(**fields: object) -> EngineCheck:
    """The question about an entry with these fields."""
    entry = parse_entry({"name": "m", "engine": "vllm", "source": "org/m", **fields})
    assert isinstance(entry, VllmEntry)
    return EngineCheck.of(entry, ())


class FakeVllm:
    """Answers each question with its number of arguments."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def run(self, checks: Sequence[EngineCheck]) -> Sequence[str]:
        """Answer questions, and remember how many there were."""
        self.asked.append(len(checks))
        return [f"{len(each.arguments)} arguments" for each in checks]


def test_an_answer_is_kept(tmp_path: Path) -> None:
    """Only new questions are asked; another version of vLLM is asked again."""
    vllm, cache = FakeVllm(), tmp_path / "a" / "answers.json"
    one, two = check(), check(engine_args={"seed": 1})
    assert list(engine_mistakes([one], cache, vllm.run, "0.32")) == ["2 arguments"]
    answers = list(engine_mistakes([one, two], cache, vllm.run, "0.32"))
    assert answers == ["2 arguments", "3 arguments"]
    list(engine_mistakes([two, one], cache, vllm.run, "0.32"))
    assert vllm.asked == [1, 1]
    list(engine_mistakes([two, one], cache, vllm.run, "0.33"))
    assert vllm.asked == [1, 1, 2]


def test_an_answer_holds_for_the_files_as_they_are(tmp_path: Path) -> None:
    """A model whose configuration has changed is asked about again."""
    vllm, cache = FakeVllm(), tmp_path / "answers.json"
    config = tmp_path / "config.json"
    for content in ("{}", '{"a": 1}'):
        config.write_text(content)
        entry = parse_entry({"name": "m", "engine": "vllm", "source": str(tmp_path)})
        assert isinstance(entry, VllmEntry)
        list(engine_mistakes([EngineCheck.of(entry, ())], cache, vllm.run, "0.32"))
        config.unlink()
    assert vllm.asked == [1, 1]


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff"])
def test_a_cache_that_cannot_be_read_is_replaced(tmp_path: Path, content: bytes) -> None:
    """It is only a cache; one that cannot be written is done without."""
    vllm, cache = FakeVllm(), tmp_path / "answers.json"
    cache.write_bytes(content)
    assert list(engine_mistakes([check()], cache, vllm.run, "0.32")) == ["2 arguments"]
    nowhere = Path("/proc/nowhere/answers.json")
    assert list(engine_mistakes([check()], nowhere, vllm.run, "0.32")) == ["2 arguments"]


def test_vllm_is_not_told_secrets() -> None:
    """Nor references, which have no value here: the rest of the arguments is checked."""
    args = {"seed": 1, "hf_token": "hf_0123456789abcdefghij", "tokenizer": "env:T"}
    assert check(engine_args=args).arguments == {"model": "org/m", "max_model_len": None, "seed": 1}


@pytest.mark.parametrize(
    ("answer", "path", "message"),
    [
        (
            "engine_args: argument --compilation-config/-cc: bogus: Unexpected keyword argument",
            ("engine_args", "compilation_config"),
            "bogus: Unexpected keyword argument",
        ),
        (
            "User-specified max_model_len (9) is greater",
            ("max_model_len",),
            "vLLM refuses it: User-specified max_model_len (9) is greater",
        ),
        ("engine_args: no", (), "vLLM refuses it: no"),
    ],
)
def test_an_answer_is_put_at_its_field(answer: str, path: tuple[str, ...], message: str) -> None:
    """As far as vLLM names one."""
    assert located(answer) == (path, message)


def test_answers_are_kept_where_the_desktop_says() -> None:
    """Or in the home directory."""
    assert cache_file({"XDG_CACHE_HOME": "/c"}) == Path("/c/ray-llm-gateway/engine-checks.json")
    assert cache_file({"HOME": "/h"}) == Path("/h/.cache/ray-llm-gateway/engine-checks.json")
