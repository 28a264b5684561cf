"""The demo model: its size, its chat template, and its memorized dialogues."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import transformers

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "models" / "demo"
MAX_BYTES = 6_000_000
MAX_ADAPTER_BYTES = 2_000_000
SAMPLE = 5
"""Of the adapter's questions, one in so many is examined."""
FAR = 4 * 1024
"""Tokens that no answer can depend on: four layers look back 1,024 each."""
FAR_LETTERS = 11_000
"""Letters that are certainly more tokens than that."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Computation in one thread: more would wait for each other most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def trainings() -> Iterator[dict[str, ModuleType]]:
    """The modules of the model's folder, which are scripts, by name."""
    names = ["dialogues", "train", "train_adapter", "pirate", "embeddings"]
    before = {*sys.modules}
    sys.path.insert(0, str(FOLDER))
    yield {name: importlib.import_module(name) for name in names}
    sys.path.remove(str(FOLDER))
    for name in {*sys.modules} - before:
        if (FOLDER / f"{name}.py").exists():
            del sys.modules[name]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """The tokenizer, as vLLM loads it."""
    return transformers.AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def model() -> Any:
    """The model, in a precision that every CPU is fast in."""
    loaded = transformers.AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    return loaded.eval()


@pytest.fixture(scope="module")
def book(trainings: dict[str, ModuleType]) -> Any:
    """Everything that the model has to know."""
    return trainings["dialogues"].load(FOLDER / "dialogues.yaml")


def read(name: str) -> Any:
    """A file of the model."""
    return json.loads((FOLDER / name).read_text())


def rendered(tokenizer: Any, messages: list[dict[str, Any]], **more: Any) -> str:
    """A conversation as the model reads it."""
    return str(tokenizer.apply_chat_template(messages, tokenize=False, **more))


def test_the_folder_is_small_enough_for_a_repository() -> None:
    """Weights and tokenizer together."""
    files = [path for path in FOLDER.iterdir() if path.suffix in {".json", ".safetensors"}]

    assert sum(path.stat().st_size for path in files) <= MAX_BYTES


def test_every_dialogue_is_memorized(
    trainings: dict[str, ModuleType], model: Any, tokenizer: Any, book: Any
) -> None:
    """The examination of the training passes for every wording of every question."""
    train = trainings["train"]

    marks = train.marked(model, tokenizer, train.questions(book, tokenizer))

    assert marks.known == 1
    assert marks.sampled >= train.SAMPLED_SHARE


def test_the_adapter_answers_as_a_pirate(
    trainings: dict[str, ModuleType], tokenizer: Any, book: Any
) -> None:
    """Of the questions of the adapter's training, a sample is answered word for word."""
    train, train_adapter = trainings["train"], trainings["train_adapter"]
    pirate = train_adapter.adapted(FOLDER)
    train_adapter.load_adapter(pirate, FOLDER / "pirate")
    asked = [*train.questions(trainings["pirate"].retold(book), tokenizer)][::SAMPLE]

    marks = train.marked(pirate.eval(), tokenizer, asked)

    assert marks.known >= train_adapter.KNOWN_SHARE


def test_the_adapter_is_small() -> None:
    """A few hundred kilobytes, as it is in the repository, too."""
    sizes = [path.stat().st_size for path in (FOLDER / "pirate").iterdir()]

    assert sum(sizes) <= MAX_ADAPTER_BYTES


def test_any_text_can_be_written(tokenizer: Any) -> None:
    """The tokenizer is byte-level: text that the model has never seen comes back unchanged."""
    text = "Grüße, 世界! 🚀\n\ttabs, \x07 and <|im_start|> in the middle"

    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_parts_of_a_content_are_joined(tokenizer: Any) -> None:
    """Text parts are rendered like a single text."""
    parts = [{"type": "text", "text": "Say "}, {"type": "text", "text": "hello."}]

    listed = rendered(tokenizer, [{"role": "user", "content": parts}])

    assert listed == rendered(tokenizer, [{"role": "user", "content": "Say hello."}])


def test_a_tool_call_reads_as_the_model_writes_it(tokenizer: Any) -> None:
    """A call in a conversation is rendered in the Hermes format that the model itself produces."""
    call = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Paris"}}}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "What is the weather in Paris?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "sunny"},
    ]

    text = rendered(tokenizer, messages, add_generation_prompt=True)

    written = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
    assert f"<|im_start|>assistant\n{written}<|im_end|>" in text
    assert "<tool_response>\nsunny\n</tool_response>" in text
    assert text.endswith("<|im_start|>assistant\n")


def test_a_last_message_can_be_carried_on(tokenizer: Any) -> None:
    """`continue_final_message` leaves the last turn open."""
    messages = [
        {"role": "user", "content": "Count to ten."},
        {"role": "assistant", "content": "1, 2,"},
    ]

    assert rendered(tokenizer, messages, continue_final_message=True).endswith("assistant\n1, 2,")


def test_a_request_chooses_whether_the_model_thinks(tokenizer: Any) -> None:
    """The prompt opens a thought only where it is asked for."""
    messages = [{"role": "user", "content": "Think."}]

    plain = rendered(tokenizer, messages, add_generation_prompt=True)

    assert plain.endswith("<|im_start|>assistant\n")
    for name in ("enable_thinking", "thinking"):
        given = {"add_generation_prompt": True, name: True}
        assert rendered(tokenizer, messages, **given) == f"{plain}<think>"
        assert rendered(tokenizer, messages, **given | {name: False}) == plain


def test_results_of_two_calls_are_one_turn(tokenizer: Any) -> None:
    """Results that follow each other stand in one turn, as the model has learned them."""
    results = [{"role": "tool", "content": text} for text in ("one", "two")]

    text = rendered(tokenizer, [{"role": "user", "content": "Hi"}, *results])

    wrapped = "\n".join(f"<tool_response>\n{each}\n</tool_response>" for each in ("one", "two"))
    assert f"<|im_start|>user\n{wrapped}<|im_end|>" in text


def test_instructions_are_joined_to_the_first(tokenizer: Any) -> None:
    """What a system or a developer says later stands at the beginning: the question stays last."""
    first, later = (
        {"role": "system", "content": "Be kind."},
        {"role": "developer", "content": " Hm."},
    )
    asked = {"role": "user", "content": "Hi"}

    text = rendered(tokenizer, [first, asked, later], add_generation_prompt=True)

    joined = {"role": "system", "content": "Be kind. Hm."}
    assert text == rendered(tokenizer, [joined, asked], add_generation_prompt=True)


def test_requests_are_sampled_unless_they_ask_for_more() -> None:
    """No temperature is set: two answers (`n`) are refused with a temperature of 0."""
    assert "temperature" not in read("generation_config.json")


def test_the_context() -> None:
    """Room for the prompts of coding agents; each layer looks back no further than its window."""
    config = read("config.json")

    assert config["max_position_embeddings"] == 32_768
    assert set(config["layer_types"]) == {"sliding_attention"}
    assert config["sliding_window"] == 1024


def test_answers_do_not_depend_on_what_stands_far_before(
    trainings: dict[str, ModuleType], model: Any, tokenizer: Any
) -> None:
    """Behind thousands of tokens that nobody taught, the answers are the same."""
    known = {
        "What is your name?": "My name is demo.",
        "Count to ten.": "1, 2, 3, 4, 5, 6, 7, 8, 9, 10.",
        "Say hello.": "Hello!",
    }
    page = (ROOT / "docs" / "architecture.md").read_text()[:FAR_LETTERS]
    asked = []
    for question, answer in known.items():
        messages = [{"role": "system", "content": page}, {"role": "user", "content": question}]
        prompt = rendered(tokenizer, messages, add_generation_prompt=True)
        assert len(tokenizer.encode(prompt)) > FAR
        asked.append((prompt, answer))

    told = trainings["train"].answered(model, tokenizer, asked)

    assert [is_known for is_known, _ in told] == [True] * len(known)


@pytest.fixture(scope="module")
def wordings(
    trainings: dict[str, ModuleType], model: Any, tokenizer: Any, book: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings of the first and the second way to ask each question, both (questions, size)."""
    embeddings = trainings["embeddings"]
    asks = [d.asks[:2] for d in book.dialogues if len(d.asks) > 1 and d.table is None]
    with torch.inference_mode():
        one, other = (
            embeddings.embeddings(
                model, *embeddings.padded(tokenizer, [ways[place] for ways in asks])
            )
            for place in (0, 1)
        )
    return one, other


@pytest.mark.parametrize("size", [32, 64, 128, 192])
def test_embeddings_can_be_cut(wordings: tuple[torch.Tensor, torch.Tensor], size: int) -> None:
    """Of all questions, another wording of the same is nearly always the nearest, at every size."""
    ones, others = (torch.nn.functional.normalize(each[:, :size], dim=-1) for each in wordings)

    nearest = (ones @ others.T).argmax(-1)

    assert (nearest == torch.arange(len(ones))).float().mean() >= 0.95
