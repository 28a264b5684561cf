"""The demo model: its size, its chat template, and its memorized dialogues."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "models" / "demo"
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}
"""More threads would wait for each other most of the time."""
MAX_BYTES = 6_000_000
MAX_ADAPTER_BYTES = 2_000_000


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
def dialogues() -> list[dict[str, Any]]:
    """Questions with more than one wording, and no table."""
    book = yaml.safe_load((FOLDER / "dialogues.yaml").read_text())
    return [d for d in book["dialogues"] if " | " in d["ask"] and "table" not in d]


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


def test_every_dialogue_is_memorized() -> None:
    """The check of the training script passes for every wording of every question."""
    exam = subprocess.run(
        [sys.executable, FOLDER / "train.py", "--only-examine"],
        capture_output=True,
        text=True,
        check=False,
        env=ONE_THREAD,
    )

    assert exam.returncode == 0, exam.stderr


def test_the_adapter_answers_as_a_pirate() -> None:
    """The check of the adapter's training passes for every wording of every question."""
    exam = subprocess.run(
        [sys.executable, FOLDER / "train_adapter.py", "--only-examine"],
        capture_output=True,
        text=True,
        check=False,
        env=ONE_THREAD,
    )

    assert exam.returncode == 0, exam.stderr


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


def test_requests_are_sampled_unless_they_ask_for_more() -> None:
    """No temperature is set: two answers (`n`) are refused with a temperature of 0."""
    assert "temperature" not in read("generation_config.json")


def test_the_context() -> None:
    """Room for the prompts of coding agents; each layer looks back no further than its window."""
    config = read("config.json")

    assert config["max_position_embeddings"] == 32_768
    assert set(config["layer_types"]) == {"sliding_attention"}
    assert config["sliding_window"] == 1024


@torch.inference_mode()
@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What is your name?", "My name is demo."),
        ("Count to ten.", "1, 2, 3, 4, 5, 6, 7, 8, 9, 10."),
        ("Say hello.", "Hello!"),
    ],
)
def test_an_answer_does_not_depend_on_what_stands_far_before(
    tokenizer: Any, model: Any, question: str, answer: str
) -> None:
    """Behind a system prompt of thousands of tokens that nobody taught, the answer is the same."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    messages = [{"role": "system", "content": page}, {"role": "user", "content": question}]
    prompt = tokenizer(
        rendered(tokenizer, messages, add_generation_prompt=True),
        return_tensors="pt",
        add_special_tokens=False,
    )
    length = prompt["input_ids"].shape[1]

    said = model.generate(**prompt, max_new_tokens=48, do_sample=False)[0, length:]

    assert length > 4 * 1024
    assert tokenizer.decode(said, skip_special_tokens=True).startswith(answer)


@torch.inference_mode()
@pytest.mark.parametrize("size", [32, 64, 128, 192])
def test_embeddings_can_be_cut(
    tokenizer: Any, model: Any, dialogues: list[dict[str, Any]], size: int
) -> None:
    """Of all questions, another wording of the same is nearly always the nearest, at every size."""
    wordings = [[way.strip() for way in d["ask"].split(" | ")] for d in dialogues]
    ones, others = (
        torch.nn.functional.normalize(
            torch.stack([embedding(tokenizer, model, ways[place])[:size] for ways in wordings]),
            dim=-1,
        )
        for place in (0, 1)
    )

    nearest = (ones @ others.T).argmax(-1)

    assert (nearest == torch.arange(len(wordings))).float().mean() >= 0.95


def embedding(tokenizer: Any, model: Any, text: str) -> torch.Tensor:
    """The state after the last token, as vLLM pools it."""
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
    states: torch.Tensor = model.model(ids).last_hidden_state[0, -1]
    return states
