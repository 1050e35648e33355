"""Whether another checkout gives the same numbers: what a change of structure alone must not move.

    python tools/same_numbers.py ../before

Both checkouts analyze (with every further measure), compare, disturb, validate and train tiny networks with weights
from a seed on the bundled images; every value that differs is printed, but times and versions. Half a minute each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

TIMES = ("created", "versions", "seconds", "images_per_second", "source")


def numbers() -> dict[str, object]:
    """What one checkout computes."""
    import torch

    import fourier_probe as fp

    def network(name: str, **options: int) -> torch.nn.Module:
        torch.manual_seed(0)
        return fp.create(name, num_classes=10, in_chans=1, **options)

    torch.set_num_threads(1)
    cnn, vit = network("cifar_resnet8"), network("cifar_vit_patch4", depth=2)
    plain = fp.analyze(cnn, "bundled", images=40, maps=True, kernels=True, tokens=True, cka=True, device="cpu")
    tokens = fp.analyze(vit, "bundled", images=40, attention=True, device="cpu")
    fp.recast_(cnn, ["layer3.0.conv2"], locality_strength=2.0, gate=0.5)
    recast = fp.analyze(cnn, "bundled", images=40, attention=True, device="cpu")
    results = {"plain": plain, "recast": recast, "tokens": tokens}
    comparison = fp.compare(list(results.values()), labels=list(results), cnn=plain, vit=tokens)
    with tempfile.TemporaryDirectory() as folder:
        run = fp.train(model="patch_resnet", data="planted", schedule="linear", early_epoch=1, late_epoch=1, epochs=2,
                       train_images=64, batch_size=16, out=f"{folder}/run", device="cpu", threads=1)  # fmt: skip
    return {
        **{name: [result.to_json(), result.table().to_csv(), result.to_csv()] for name, result in results.items()},
        "compare": [comparison.to_json(), [vars(table) for table in comparison.tables()]],
        "heatmap": fp.heatmap(vit, "bundled", bands=3, images=20, device="cpu").to_frame().to_csv(),
        "validate": fp.validate(vit, "bundled", images=60).table().to_csv(),
        "train": [{name: getattr(row, name) for name in row.__struct_fields__} for row in run.metrics],
    }


def differing(here: object, there: object, path: str = "") -> Iterator[str]:
    """Every leaf in which two values differ, by its path."""
    if isinstance(here, dict) and isinstance(there, dict):
        for name in (name for name in {**here, **there} if name not in TIMES):
            yield from differing(here.get(name), there.get(name), f"{path}.{name}")
    elif isinstance(here, list) and isinstance(there, list) and len(here) == len(there):
        for index, pair in enumerate(zip(here, there, strict=True)):
            yield from differing(*pair, f"{path}[{index}]")
    elif here != there:
        yield f"{path}: {str(here)[:200]} and {str(there)[:200]}"


def main() -> None:
    """Compare this checkout with the one that is named."""
    if len(sys.argv) == 1:
        warnings.simplefilter("ignore")
        print(json.dumps(numbers(), default=str))
        return
    values = []
    for checkout in (Path(__file__).parents[1], Path(sys.argv[1])):
        environment = {**os.environ, "PYTHONPATH": str(checkout.resolve())}
        done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, check=True)  # noqa: S603
        values.append(json.loads(done.stdout))
    differences = list(differing(*values))
    print("\n".join(differences) or "the same numbers")
    sys.exit(bool(differences))


if __name__ == "__main__":
    main()
