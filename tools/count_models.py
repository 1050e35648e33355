"""Parameters and multiply-adds of our models, with torch's own counter: the tables of docs/models.md.

    python tools/count_models.py

Multiply-adds are given without the two attention products (query with key, map with value), as EIT's paper counts, and
with them.
"""

from __future__ import annotations

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fourier_probe.models import create, names
from fourier_probe.models.zoo import input_spec


def multiply_adds(name: str) -> tuple[float, float]:
    """Without and with the attention products, in 10^9."""
    model = create(name).eval()
    spec = input_spec(model)
    image = torch.zeros(1, spec.channels, *spec.size)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel([SDPBackend.MATH]):
        model(image)
    total = counter.get_total_flops() / 2e9
    products = sum(flops for op, flops in counter.get_flop_counts()["Global"].items() if "bmm" in str(op)) / 2e9
    return total - products, total


def main() -> None:
    """Print the tables."""
    print("| model | parameters | all-attention twin | multiply-adds (G) | with attention products |")
    print("|---|---|---|---|---|")
    for name in names("eit_*"):
        twin = sum(p.numel() for p in create(name, split="attention").parameters())
        less, total = multiply_adds(name)
        count = sum(p.numel() for p in create(name).parameters())
        print(f"| {name} | {count:,} | {twin:,} | {less:.3f} | {total:.3f} |")
    print("\n| model (100 classes, 32 px) | parameters | multiply-adds (G), with attention products |\n|---|---|---|")
    for name in names("cifar_*"):
        count = sum(p.numel() for p in create(name).parameters())
        print(f"| {name} | {count:,} | {multiply_adds(name)[1]:.3f} |")


if __name__ == "__main__":
    main()
