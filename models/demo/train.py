"""Trains the demo model from scratch on the CPU, writes it into this folder, and examines it.

    python models/demo/train.py

The matrices of the layers are trained with Muon, the rest with AdamW, on rows that are drawn anew
for every step. The exit status is 1 unless every answer comes back word for word.
"""

import argparse
import logging
import random
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tokens
import torch
from dialogues import NOISE, Book, fill, load
from embeddings import Pairs, loss_of_pairs
from lessons import UNLEARNED, Lessons, Question, all_paths
from muon import Muon
from torch.optim import AdamW, Optimizer
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

HERE = Path(__file__).parent
VOCABULARY = 2048
LONGEST_PROMPT = 32_768
WINDOW = 1024
"""Tokens that each layer looks back: what stands before four windows cannot matter."""
SHARPNESS = 2.0
"""What the logits are multiplied by in the end, so that sampling, too, gives what was learned."""
MUON_RATE = 0.05
ADAM_RATE = 6e-3
STEPS = 1500
STEP_TOKENS = 2048
ROW_LENGTHS = {256: 0.35, 512: 0.2, 1024: 0.38, 2048: 0.07}
"""Tokens in a row, and how often a step has rows of that length."""
PAIRS = 24
PAIRS_EVERY = 8
"""Steps from one batch of pairs for embeddings to the next."""
PAIRS_WEIGHT = 0.1
EXAM_ROWS = 32
LEAST_WEAKNESS = 0.01
SAMPLED_SHARE = 0.98
"""Of all answers, what has to come back word for word at a temperature of 1."""

log = logging.getLogger("train")


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to train, and how fast."""

    steps: int
    rate: float = 1.0
    """Of the usual learning rate; less for a model that knows most already."""


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
        use_sliding_window=True,
        sliding_window=WINDOW,
        max_window_layers=0,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        is_matryoshka=True,
        dtype="float32",
    )
    return Qwen3ForCausalLM(config)


def sharpened(model: Qwen3ForCausalLM, factor: float) -> None:
    """Multiplies all logits of the model."""
    model.model.norm.weight.data *= factor


def new_optimizers(model: Qwen3ForCausalLM) -> list[Optimizer]:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    return [
        Muon(matrices, lr=MUON_RATE),
        AdamW(others, lr=ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def rate_factor(done: float) -> float:
    """The learning rate's factor when this share of the steps is done: up, level, down to zero."""
    return min(1.0, done / 0.015 + 0.05, (1.0 - done) / 0.6)


def loss_of(model: Qwen3ForCausalLM, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of the tokens that are to be learned; both tensors are (rows, tokens)."""
    hidden = model.model(ids, use_cache=False).last_hidden_state[:, :-1]
    wanted = labels[:, 1:]
    learned = wanted != UNLEARNED
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[learned]), wanted[learned])


def train(
    model: Qwen3ForCausalLM, lessons: Lessons, pairs: Pairs, plan: Plan, rng: random.Random
) -> None:
    """Trains the model in place."""
    optimizers = new_optimizers(model)
    rates = [optimizer.param_groups[0]["lr"] * plan.rate for optimizer in optimizers]
    start, mean_loss, pairs_loss = time.monotonic(), 0.0, 0.0
    for step in range(plan.steps):
        (length,) = rng.choices([*ROW_LENGTHS], [*ROW_LENGTHS.values()])
        loss = loss_of(model, *lessons.batch(STEP_TOKENS // length, length))
        torch.autograd.backward(loss)
        if step % PAIRS_EVERY == 0:
            of_pairs = loss_of_pairs(model, *pairs.batch(PAIRS))
            torch.autograd.backward(PAIRS_WEIGHT * of_pairs)
            pairs_loss += (of_pairs.item() - pairs_loss) / min(step // PAIRS_EVERY + 1, 20)
        for optimizer, rate in zip(optimizers, rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * rate_factor(step / plan.steps)
            optimizer.step()
            optimizer.zero_grad()
        mean_loss += (loss.item() - mean_loss) / min(step + 1, 50)
        if (step + 1) % 50 == 0:
            passed_s = time.monotonic() - start
            log.info(
                "step %d: loss %.4f, of pairs %.3f, %.0f s",
                step + 1,
                mean_loss,
                pairs_loss,
                passed_s,
            )


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes weights, configuration and tokenizer."""
    ends = tokenizer.convert_tokens_to_ids([tokens.END_OF_TURN, tokens.END_OF_TEXT])
    sharpened(model, SHARPNESS)
    model.generation_config = GenerationConfig(
        eos_token_id=ends, pad_token_id=tokenizer.pad_token_id
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # safetensors would keep it from other users
    tokens.save(tokenizer, folder)


def questions(book: Book, tokenizer: PreTrainedTokenizerFast) -> Iterator[Question]:
    """Every prompt the model should know, rendered, and the answer with its end."""
    for text in book.completions:
        yield text.text, text.next + tokens.END_OF_TEXT
    for path in all_paths(book):
        *before, last = path.turns
        row = {**path.row, NOISE: ""}
        messages = [
            {"role": role, "content": fill(text, row)}
            for turn in before
            for role, text in (("user", turn.asks[0]), ("assistant", turn.answer))
        ]
        answer = fill(last.answer, row) + tokens.END_OF_TURN
        for number, ask in enumerate(last.asks):
            asked = [*messages, {"role": "user", "content": fill(ask, row)}]
            for thinks in (False, True) if number == 0 else (False,):
                prompt = tokenizer.apply_chat_template(
                    asked,
                    tools=book.tool_specs(path.needed) or None,
                    add_generation_prompt=True,
                    enable_thinking=thinks,
                    tokenize=False,
                )
                yield str(prompt), last.thought + answer if thinks else answer


def examine(folder: Path, book: Book) -> bool:
    """Loads the model from its files; whether it knows every answer by heart."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    # Weights as in the files, but computed in a precision that every CPU is fast in.
    tokenizer = AutoTokenizer.from_pretrained(folder)
    marks = marked(model.float().eval(), tokenizer, questions(book, tokenizer))
    return marks.known == 1 and marks.sampled >= SAMPLED_SHARE


@dataclass(frozen=True, slots=True)
class Marks:
    """Shares of the book's answers that come back word for word."""

    known: float
    """With greedy decoding."""
    sampled: float
    """With a temperature of 1: expected, not tried."""


def marked(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, asked: Iterable[Question]
) -> Marks:
    """How well the model knows the answers."""
    told = chances(model, tokenizer, asked)
    wrong = [asked for asked, (is_known, _) in told.items() if not is_known]
    known = 1 - len(wrong) / len(told)
    marks = Marks(known, sum(chance for _, chance in told.values()) / len(told))
    log.info("%d of %d answers word for word", len(told) - len(wrong), len(told))
    log.info("%.1f %% of sampled answers word for word", 100 * marks.sampled)
    for prompt, answer in wrong[:20]:
        log.error("not by heart: %r -> %r", prompt[-120:], answer)
    return marks


def chances(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, asked: Iterable[Question]
) -> dict[Question, tuple[bool, float]]:
    """For every question: whether its answer is known, and the chance of sampling it.

    Greedy decoding gives the expected answer exactly if, after the prompt and every beginning of
    the answer, the most probable token is the expected one: one pass over both tells. The product
    of all probabilities is the chance that a sampled answer is the expected one.
    """
    asked = sorted({*asked}, key=lambda pair: (len("".join(pair)), pair))
    told: dict[Question, tuple[bool, float]] = {}
    for first in range(0, len(asked), EXAM_ROWS):
        rows = asked[first : first + EXAM_ROWS]
        told |= zip(rows, answered(model, tokenizer, rows), strict=True)
    return told


@torch.inference_mode()
def answered(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, asked: Sequence[Question]
) -> list[tuple[bool, float]]:
    """For each question of a batch: whether its answer is known, and the chance of sampling it."""
    encode = tokenizer.encode
    prompts = [encode(prompt, add_special_tokens=False) for prompt, _ in asked]
    answers = [encode(answer, add_special_tokens=False) for _, answer in asked]
    rows = [torch.tensor(p + a) for p, a in zip(prompts, answers, strict=True)]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    told = []
    states = model.model(ids, use_cache=False).last_hidden_state
    for prompt, answer, row in zip(prompts, answers, states, strict=True):
        before = row[len(prompt) - 1 : len(prompt) + len(answer) - 1]
        said = model.lm_head(before).log_softmax(-1)
        wanted = torch.tensor(answer)
        chance = said.gather(-1, wanted[:, None]).sum().exp().item()
        told.append((bool((said.argmax(-1) == wanted).all()), chance))
    return told


def weaknesses(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, book: Book
) -> dict[Question, float]:
    """For every question, the chance of a wrong answer, and a little more: none is forgotten."""
    told = chances(model, tokenizer, questions(book, tokenizer))
    return {asked: 1 - chance + LEAST_WEAKNESS for asked, (_, chance) in told.items()}


def _begun(start: Path | None, book: Book) -> tuple[PreTrainedTokenizerFast, Qwen3ForCausalLM]:
    """A new model and its tokenizer, or those in a folder."""
    template = (HERE / "chat_template.jinja").read_text(encoding="utf-8")
    if start is None:
        tokenizer = tokens.train(book, template, VOCABULARY, LONGEST_PROMPT)
        return tokenizer, new_model(tokenizer)
    tokenizer = AutoTokenizer.from_pretrained(start)
    tokenizer.chat_template, tokenizer.model_max_length = template, LONGEST_PROMPT
    model = new_model(tokenizer)
    weights = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32).state_dict()
    model.load_state_dict(weights)
    sharpened(model, 1 / SHARPNESS)
    return tokenizer, model


def main() -> int:
    """Trains, saves, and examines; 0 if everything is known by heart."""
    parser = argparse.ArgumentParser(description="Train the demo model.")
    parser.add_argument("--out", type=Path, default=HERE, help="the folder to write")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--rate", type=float, default=1.0, help="times the usual learning rate")
    parser.add_argument("--start", type=Path, help="go on with the model in this folder")
    parser.add_argument("--recorded", type=Path, help="a folder with prompts of agents: TOOL.txt")
    parser.add_argument("--only-examine", action="store_true", help="do not train")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    torch.manual_seed(options.seed)
    rng = random.Random(options.seed)  # noqa: S311 - to be repeatable, not secret
    book = load(HERE / "dialogues.yaml")
    if not options.only_examine:
        tokenizer, model = _begun(options.start, book)
        pairs = Pairs(book, tokenizer, rng)
        plan = Plan(options.steps, options.rate)
        prompts = sorted(options.recorded.glob("*.txt")) if options.recorded else []
        recorded = {path.stem: path.read_text(encoding="utf-8") for path in prompts}
        weak: dict[Question, float] = {}
        if options.start:
            sharpened(model, SHARPNESS)
            weak = weaknesses(model, tokenizer, book)
            sharpened(model, 1 / SHARPNESS)
        train(model, Lessons(book, tokenizer, rng, recorded, weak), pairs, plan, rng)
        save(model, tokenizer, options.out)
    return 0 if examine(options.out, book) else 1


if __name__ == "__main__":
    sys.exit(main())
