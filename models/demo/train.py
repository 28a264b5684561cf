"""Trains the demo model from scratch on the CPU, writes it into this folder, and examines it.

    python models/demo/train.py

The matrices of the layers are trained with Muon, the rest with AdamW, on rows that are drawn anew
for every step. The exit status is 1 unless every answer comes back word for word.
"""

import argparse
import json
import logging
import random
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import tokens
import torch
from dialogues import Book, fill, load
from lessons import UNLEARNED, Lessons, all_paths
from torch.optim import AdamW, Muon, Optimizer
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

HERE = Path(__file__).parent
VOCABULARY = 2048
LONGEST_PROMPT = 8192
MUON_RATE = 0.05
ADAM_RATE = 6e-3
STEPS = 2000
STEP_TOKENS = 2048
ROW_LENGTHS = {256: 0.6, 512: 0.25, 1024: 0.1, 2048: 0.05}
"""Tokens in a row, and how often a step has rows of that length."""
EXAM_ROWS = 32

log = logging.getLogger("train")


def new_model(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """A model of two million random weights."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,  # a size vLLM's attention has on every device
        max_position_embeddings=LONGEST_PROMPT,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    return Qwen3ForCausalLM(config)


def new_optimizers(model: Qwen3ForCausalLM) -> list[Optimizer]:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    return [
        Muon(matrices, lr=MUON_RATE, weight_decay=0.0),
        AdamW(others, lr=ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def rate_factor(done: float) -> float:
    """The learning rate's factor when this share of the steps is done: up, level, down to zero."""
    return min(1.0, done / 0.015 + 0.05, (1.0 - done) / 0.6)


def loss_of(model: Qwen3ForCausalLM, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of the tokens that are to be learned; both tensors are (rows, tokens)."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.model(ids, use_cache=False).last_hidden_state[:, :-1]
        wanted = labels[:, 1:]
        learned = wanted != UNLEARNED
        scores = model.lm_head(hidden[learned])
    return torch.nn.functional.cross_entropy(scores.float(), wanted[learned])


def train(model: Qwen3ForCausalLM, lessons: Lessons, steps: int, rng: random.Random) -> None:
    """Trains the model in place."""
    optimizers = new_optimizers(model)
    rates = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    start, mean_loss = time.monotonic(), 0.0
    for step in range(steps):
        (length,) = rng.choices([*ROW_LENGTHS], [*ROW_LENGTHS.values()])
        loss = loss_of(model, *lessons.batch(STEP_TOKENS // length, length))
        torch.autograd.backward(loss)
        for optimizer, rate in zip(optimizers, rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * rate_factor(step / steps)
            optimizer.step()
            optimizer.zero_grad()
        mean_loss += (loss.item() - mean_loss) / min(step + 1, 50)
        if (step + 1) % 50 == 0:
            log.info("step %d: loss %.4f, %.0f s", step + 1, mean_loss, time.monotonic() - start)


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes weights, configuration and tokenizer; decoding is greedy unless a request differs."""
    ends = tokenizer.convert_tokens_to_ids([tokens.END_OF_TURN, tokens.END_OF_TEXT])
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # safetensors would keep it from other users
    # Written by hand: transformers refuses the temperature 0 that vLLM reads as its default.
    defaults = {"eos_token_id": ends, "pad_token_id": tokenizer.pad_token_id, "temperature": 0.0}
    path = folder / "generation_config.json"
    path.write_text(json.dumps(defaults, indent=2) + "\n", encoding="utf-8")
    tokens.save(tokenizer, folder)


def questions(book: Book, tokenizer: PreTrainedTokenizerFast) -> Iterator[tuple[str, str]]:
    """Every prompt the model should know, rendered, and the answer with its end."""
    for text in book.completions:
        yield text.text, text.next + tokens.END_OF_TEXT
    for path in all_paths(book):
        *before, last = path.turns
        needed = path.dialogue.tools
        offered = needed if isinstance(needed, tuple) else ()
        messages = [
            {"role": role, "content": fill(text, path.row)}
            for turn in before
            for role, text in (("user", turn.asks[0]), ("assistant", turn.answer))
        ]
        for ask in last.asks:
            asked = [*messages, {"role": "user", "content": fill(ask, path.row)}]
            prompt = tokenizer.apply_chat_template(
                asked,
                tools=book.tool_specs(offered) or None,
                add_generation_prompt=True,
                tokenize=False,
            )
            yield str(prompt), fill(last.answer, path.row) + tokens.END_OF_TURN


def examine(folder: Path, book: Book) -> bool:
    """Loads the model from its files; whether it knows every answer by heart."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    return known_share(model, AutoTokenizer.from_pretrained(folder), book) == 1


def known_share(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, book: Book) -> float:
    """The share of the book's answers that the model knows by heart.

    Greedy decoding gives the expected answer exactly if, after the prompt and every beginning of
    the answer, the most probable token is the expected one: one pass over both tells.
    """
    asked = sorted(questions(book, tokenizer), key=lambda pair: len(pair[0]) + len(pair[1]))
    wrong = [
        question
        for first in range(0, len(asked), EXAM_ROWS)
        for question in _wrong(model, tokenizer, asked[first : first + EXAM_ROWS])
    ]
    log.info("%d of %d answers word for word", len(asked) - len(wrong), len(asked))
    for prompt, answer in wrong[:20]:
        log.error("not by heart: %r -> %r", prompt[-120:], answer)
    return 1 - len(wrong) / len(asked)


@torch.inference_mode()
def _wrong(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, asked: Sequence[tuple[str, str]]
) -> list[tuple[str, str]]:
    """The questions of one batch that are answered with another token somewhere."""
    encode = tokenizer.encode
    prompts = [encode(prompt, add_special_tokens=False) for prompt, _ in asked]
    answers = [encode(answer, add_special_tokens=False) for _, answer in asked]
    rows = [torch.tensor(p + a) for p, a in zip(prompts, answers, strict=True)]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    guesses = model(ids).logits.argmax(-1)
    return [
        question
        for question, prompt, answer, guess in zip(asked, prompts, answers, guesses, strict=True)
        if guess[len(prompt) - 1 : len(prompt) + len(answer) - 1].tolist() != answer
    ]


def main() -> int:
    """Trains, saves, and examines; 0 if everything is known by heart."""
    parser = argparse.ArgumentParser(description="Train the demo model.")
    parser.add_argument("--out", type=Path, default=HERE, help="the folder to write")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--only-examine", action="store_true", help="do not train")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    torch.manual_seed(options.seed)
    rng = random.Random(options.seed)  # noqa: S311 - to be repeatable, not secret
    book = load(HERE / "dialogues.yaml")
    if not options.only_examine:
        template = (HERE / "chat_template.jinja").read_text(encoding="utf-8")
        tokenizer = tokens.train(book, template, VOCABULARY, LONGEST_PROMPT)
        model = new_model(tokenizer)
        train(model, Lessons(book, tokenizer, rng), options.steps, rng)
        save(model, tokenizer, options.out)
    return 0 if examine(options.out, book) else 1


if __name__ == "__main__":
    sys.exit(main())
