"""The tokenizer: byte-level BPE, trained on the dialogues, with the chat template of this folder.

A space is joined to a lower-case word or a sign after it, but not to a capital letter or a digit.
So a name is the same tokens in a question, in JSON, and in an answer. Every other sign is a token
of its own, so JSON has one way to be written.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from dialogues import Book, Turn
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"
START_OF_TURN = "<|im_start|>"
END_OF_TURN = "<|im_end|>"
_TAGS = ("think", "tool_call", "tool_response")
_WORDS = Regex(r" ?\p{Ll}+|\p{L}\p{Ll}*|\p{N}| ?[^\s\p{L}\p{N}]|\n+|\s")


def train(book: Book, template: str, size: int, longest: int) -> PreTrainedTokenizerFast:
    """A tokenizer of `size` tokens for prompts of up to `longest` tokens."""
    special = [_added(text, special=True) for text in (END_OF_TEXT, START_OF_TURN, END_OF_TURN)]
    tags = [_added(tag, special=False) for name in _TAGS for tag in (f"<{name}>", f"</{name}>")]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_WORDS, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(tags),
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(book, template), trainer)
    tokenizer.add_tokens(tags)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TURN,
        pad_token=END_OF_TEXT,
        model_max_length=longest,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = template
    return fast


def save(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes the tokenizer so that transformers 4 reads it as well as transformers 5."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    for name in ("is_local", "local_files_only"):  # of where it was loaded from
        config.pop(name, None)
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _added(text: str, *, special: bool) -> AddedToken:
    return AddedToken(text, special=special, normalized=False)


def _texts(book: Book, template: str) -> Iterator[str]:
    """What the vocabulary should be good at: answers more than questions, then everything else."""
    for turn in _turns(book.dialogues):
        yield from (*turn.asks, turn.answer, turn.answer, turn.answer)
    for completion in book.completions:
        yield completion.text + completion.next
    for rows in book.tables.values():
        yield from (" ".join(row.values()) for row in rows)
    yield from (book.unknown, *book.strange, *book.systems)
    yield from (template, json.dumps(book.tool_specs([*book.tools]))) * 3


def _turns(turns: Sequence[Turn]) -> Iterator[Turn]:
    for turn in turns:
        yield turn
        yield from _turns(turn.then)
