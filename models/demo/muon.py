"""Muon, in single precision: PyTorch's own computes in bfloat16, which many CPUs do slowly.

Each matrix is moved by its momentum with all singular values set to about one, by five
Newton-Schulz iterations (https://kellerjordan.github.io/posts/muon/). Cost: a few products of
matrices as large as the parameter, whatever the batch.
"""

import math
from collections.abc import Iterable

import torch
from torch.optim import Optimizer

MOMENTUM = 0.95
ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic whose iteration drives singular values between 0 and 1 to about 1."""


class Muon(Optimizer):
    """Moves matrices; all gradients must be there."""

    def __init__(self, matrices: Iterable[torch.nn.Parameter], lr: float) -> None:
        super().__init__(matrices, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Moves every matrix once."""
        for group in self.param_groups:
            for matrix in group["params"]:
                mean = self.state[matrix].setdefault("mean", torch.zeros_like(matrix))
                mean.lerp_(matrix.grad, 1 - MOMENTUM)
                move = orthogonalized(matrix.grad.lerp(mean, MOMENTUM))
                stretch = math.sqrt(max(1.0, matrix.size(0) / matrix.size(1)))
                matrix.sub_(move, alpha=group["lr"] * stretch)


def orthogonalized(matrix: torch.Tensor) -> torch.Tensor:
    """The matrix with singular values of about one; the shape stays."""
    first, second, third = COEFFICIENTS
    is_tall = matrix.size(0) > matrix.size(1)
    wide: torch.Tensor = matrix.T if is_tall else matrix
    wide = wide / wide.norm().clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = wide @ wide.T
        wide = first * wide + (second * gram + third * gram @ gram) @ wide
    return wide.T if is_tall else wide
