"""`--compile` goes on compiling, however many layers switch."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo

from fourier_probe.training import train

from .test_distributed import NET
from .tiny import last, log, tiny

LIMIT = 3  # dynamo gives up on a forward, silently, when it has compiled it that often; eight times by default
SWITCHES = LIMIT + 1


def test_steps_are_compiled_after_more_switches_than_dynamo_compiles_a_forward(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net.py").write_text(
        NET.replace("nn.Sequential(Block(6), Block(6))", f"nn.Sequential(*(Block(6) for _ in range({SWITCHES})))")
    )
    ran: list[int] = []  # training steps within compiled graphs

    def backend(graph: torch.fx.GraphModule, _inputs: list[Any]) -> Any:
        def run(*arguments: Any) -> Any:
            ran.append(1)
            return graph.forward(*arguments)

        return run

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    switches = {f"blocks.{index}.conv": index + 1 for index in range(SWITCHES)}
    config = tiny(
        data,
        model=f"{tmp_path / 'net.py'}:Net",
        model_args={},
        compile=True,
        schedule="custom",
        switches=switches,
        epochs=SWITCHES + 2,
        batch_size=48,
        anneal_epochs=0.0,
    )
    with torch._dynamo.config.patch(recompile_limit=LIMIT):
        train(config, tmp_path / "run")
    assert len(last(tmp_path / "run")["conversions"]) == SWITCHES
    assert len(log(tmp_path / "run")) == SWITCHES + 2
    assert len(ran) >= SWITCHES + 2  # one step an epoch
