"""The demo model: its size, its chat template, and its memorized dialogues."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers

FOLDER = Path(__file__).parents[2] / "models" / "demo"
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}
"""More threads would wait for each other most of the time."""
MAX_BYTES = 6_000_000
MAX_ADAPTER_BYTES = 2_000_000


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """The tokenizer, as vLLM loads it."""
    return transformers.AutoTokenizer.from_pretrained(FOLDER)


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
