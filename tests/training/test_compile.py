"""`--compile` goes on compiling, however many layers switch."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch

from fourier_probe.training import train

from .test_distributed import NET
from .tiny import last, log, tiny

SWITCHES = 4


def test_versions_of_a_forward_are_counted_anew_after_a_switch(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net.py").write_text(
        NET.replace("nn.Sequential(Block(6), Block(6))", f"nn.Sequential(*(Block(6) for _ in range({SWITCHES})))")
    )
    versions: list[int] = []  # how many there are of the forward being compiled: dynamo makes eight, then no more
    ran: list[int] = []  # training steps within compiled graphs

    def backend(graph: torch.fx.GraphModule, _inputs: list[Any]) -> Any:
        made = torch._guards.CompileContext.current_compile_id()
        assert made is not None and made.frame_compile_id is not None
        versions.append(made.frame_compile_id + 1)

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
    train(config, tmp_path / "run")
    assert len(last(tmp_path / "run")["conversions"]) == SWITCHES
    assert len(log(tmp_path / "run")) == SWITCHES + 2
    assert len(ran) >= SWITCHES + 2  # one step per epoch
    assert len(versions) > SWITCHES  # each switch is compiled
    assert max(versions) <= 2  # as many as there were switches, and one, if they were not forgotten
