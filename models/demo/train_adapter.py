"""Trains a LoRA adapter of the demo model, writes it into `pirate/`, and examines it.

    python models/demo/train_adapter.py

With the adapter the model gives the same answers as a pirate would (`pirate.py`). It is written as
PEFT writes adapters, which is what vLLM reads. The exit status is 1 unless 95 answers in a hundred
come back word for word.
"""

import argparse
import json
import logging
import math
import random
import sys
import time
from pathlib import Path

import pirate
import torch
import train
from dialogues import Book, load
from lessons import Lessons, Question
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3ForCausalLM

FOLDER = train.HERE / "pirate"
RANK = 8
ALPHA = 16
RATE = 4e-3
STEPS = 800
STEP_TOKENS = 2048
KNOWN_SHARE = 0.95
"""Of the answers, what has to be known word for word: a long story is much for so few weights."""
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

log = logging.getLogger("train_adapter")


class Adapted(nn.Module):
    """A matrix that is left alone, and a product of two small ones that is added to it."""

    def __init__(self, matrix: nn.Linear) -> None:
        super().__init__()
        self.matrix = matrix
        self.down = nn.Parameter(torch.empty(RANK, matrix.in_features))
        self.up = nn.Parameter(torch.zeros(matrix.out_features, RANK))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The sum of both; x is (..., in), the result (..., out)."""
        added = nn.functional.linear(nn.functional.linear(x, self.down), self.up)
        result: torch.Tensor = self.matrix(x) + ALPHA / RANK * added
        return result


def adapted(folder: Path) -> Qwen3ForCausalLM:
    """The model in `folder`, frozen, with an adapter that does nothing yet."""
    model: Qwen3ForCausalLM = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.requires_grad_(requires_grad=False)
    for block in model.model.layers:
        for part in (block.self_attn, block.mlp):
            for name in TARGETS:
                if hasattr(part, name):
                    setattr(part, name, Adapted(getattr(part, name)))
    return model


def teach(model: Qwen3ForCausalLM, lessons: Lessons, plan: train.Plan, rng: random.Random) -> None:
    """Trains the adapter in place."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    rate = RATE * plan.rate
    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.98), weight_decay=0.0)
    start, mean_loss = time.monotonic(), 0.0
    for step in range(plan.steps):
        (length,) = rng.choices([*train.ROW_LENGTHS], [*train.ROW_LENGTHS.values()])
        loss = train.loss_of(model, *lessons.batch(STEP_TOKENS // length, length))
        torch.autograd.backward(loss)
        optimizer.param_groups[0]["lr"] = rate * train.rate_factor(step / plan.steps)
        optimizer.step()
        optimizer.zero_grad()
        mean_loss += (loss.item() - mean_loss) / min(step + 1, 50)
        if (step + 1) % 50 == 0:
            log.info("step %d: loss %.4f, %.0f s", step + 1, mean_loss, time.monotonic() - start)


def save(model: Qwen3ForCausalLM, folder: Path) -> None:
    """Writes the adapter as PEFT does."""
    folder.mkdir(exist_ok=True)
    tensors = {}
    for name, module in model.named_modules():
        if isinstance(module, Adapted):
            tensors[f"base_model.model.{name}.lora_A.weight"] = module.down
            tensors[f"base_model.model.{name}.lora_B.weight"] = module.up
    path = folder / "adapter_model.safetensors"
    save_file({name: t.detach().to(torch.bfloat16) for name, t in tensors.items()}, path)
    path.chmod(0o644)  # safetensors would keep it from other users
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "models/demo",
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(TARGETS),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def load_adapter(model: Qwen3ForCausalLM, folder: Path) -> None:
    """Reads the adapter's weights from its files."""
    tensors = load_file(folder / "adapter_model.safetensors")
    for name, module in model.named_modules():
        if isinstance(module, Adapted):
            module.down.data = tensors[f"base_model.model.{name}.lora_A.weight"].float()
            module.up.data = tensors[f"base_model.model.{name}.lora_B.weight"].float()


def examine(folder: Path, adapter: Path, book: Book) -> bool:
    """Loads model and adapter from their files; whether the answers are a pirate's."""
    model = adapted(folder)
    load_adapter(model, adapter)
    model.eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    asked = train.questions(book, tokenizer)
    return train.marked(model, tokenizer, asked).known >= KNOWN_SHARE


def main() -> int:
    """Trains, saves, and examines; 0 if enough is known by heart."""
    parser = argparse.ArgumentParser(description="Train the demo model's adapter.")
    parser.add_argument("--out", type=Path, default=FOLDER, help="the folder to write")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--rate", type=float, default=1.0, help="times the usual learning rate")
    parser.add_argument("--start", type=Path, help="go on with the adapter in this folder")
    parser.add_argument("--only-examine", action="store_true", help="do not train")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    torch.manual_seed(options.seed)
    rng = random.Random(options.seed)  # noqa: S311 - to be repeatable, not secret
    book = pirate.retold(load(train.HERE / "dialogues.yaml"))
    if not options.only_examine:
        model = adapted(train.HERE)
        tokenizer = AutoTokenizer.from_pretrained(train.HERE)
        weak: dict[Question, float] = {}
        if options.start:
            load_adapter(model, options.start)
            weak = train.weaknesses(model, tokenizer, book)
        lessons = Lessons(book, tokenizer, rng, weak=weak)
        teach(model, lessons, train.Plan(options.steps, options.rate), rng)
        save(model, options.out)
    return 0 if examine(train.HERE, options.out, book) else 1


if __name__ == "__main__":
    sys.exit(main())
