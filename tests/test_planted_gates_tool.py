"""tools/planted_gates.py on run folders made up for it."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from scipy.stats import binom

ROOT = Path(__file__).parents[1]
TOOL = ROOT / "tools" / "planted_gates.py"
STEPS, SWITCH = 100, 2


def make_run(
    folder: Path, gate: float | None, accuracies: list[float], *, finished: bool = True, seed: int = 0
) -> None:
    """A run whose validations, every 100 steps, gave these; the layer switched after 200."""
    shipped = next(path for path in sorted((ROOT / "checkpoints").glob("*-linear-*/config.json")))
    record = json.loads(shipped.read_text())
    record["config"] |= {
        "schedule": "constant",
        "seed": seed,
        "anneal_epochs": 0.1,
        "recast_args": {} if gate is None else {"gate": gate},
    }
    record["plan"]["steps"], record["plan"]["schedule"]["epochs"] = STEPS, {"layer": SWITCH}
    record["result"] = {"epochs": len(accuracies)} if finished else None
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(record))
    rows = [f"{epoch},{STEPS * (epoch + 1)},{accuracy}" for epoch, accuracy in enumerate(accuracies)]
    (folder / "metrics.csv").write_text("\n".join(["epoch,step,val_acc", *rows]) + "\n")
    (folder / "conversions.csv").write_text(
        f"layer,epoch,loss_before,acc_before,loss_after,acc_after,ratio,images\nlayer,{SWITCH},1,0.5,1,0.5,1,64\n"
    )


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What the tool prints."""
    spec = importlib.util.spec_from_file_location("planted_gates", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "planted_gates", module)
    spec.loader.exec_module(module)

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["planted_gates.py", *arguments])
        module.main()
        return capsys.readouterr().out

    return run


def test_shares_by_gate_and_steps_since_the_switch(tmp_path: Path, tool: Callable[..., str]) -> None:
    make_run(tmp_path / "a", -1.0, [0.8, 0.99, 0.8, 0.95, 0.7])  # 0.99 before the switch says nothing
    make_run(tmp_path / "b", -1.0, [0.8, 0.8, 0.8, 0.8, 0.9499])
    make_run(
        tmp_path / "c", -1.0, [0.8, 0.8, 0.96]
    )  # trained for 100 steps since, and solved: it counts at 200 and 300
    make_run(tmp_path / "d", -1.0, [0.8, 0.8, 0.8])  # trained for 100 and not solved: unknown at 200
    make_run(tmp_path / "e", None, [0.8, 0.8, 0.8, 0.8])  # comes to rest at 1
    make_run(tmp_path / "f", -1.0, [0.8], finished=False)
    told = json.loads(tool(str(tmp_path), "--json"))
    assert told["unfinished"] == 1
    assert list(told["gates"]) == ["-1.0", "1.0"]
    cells = [(cell["steps"], cell["solved"], cell["seeds"]) for cell in told["gates"]["-1.0"]][:2]
    assert cells == [(200, 2, 3), (300, 2, 3)]
    assert [(cell["steps"], cell["solved"], cell["seeds"]) for cell in told["gates"]["1.0"]] == [(200, 0, 1)]
    low, high = told["gates"]["-1.0"][0]["low"], told["gates"]["-1.0"][0]["high"]
    assert binom.sf(1, 3, low) == pytest.approx(0.025)  # the definition: 2 or more of 3 at the lower bound
    assert binom.cdf(2, 3, high) == pytest.approx(0.025)
    table = tool(str(tmp_path))
    assert (
        "| N | gate logit -1 | gate logit 1 |\n|---|---|---|\n| 200 | 2 of 3 (9 to 99 %) | 0 of 1 (0 to 98 %) |"
        in table
    )
    assert "1 runs are not finished" in table


def test_gates_are_compared_seed_by_seed(tmp_path: Path, tool: Callable[..., str]) -> None:
    for seed, (early, late) in enumerate([(3, 5), (3, 4), (4, 7)]):  # validations until solved, the switch after 2
        make_run(tmp_path / f"a{seed}", -1.0, [0.5] * (early - 1) + [0.96], seed=seed)
        make_run(tmp_path / f"b{seed}", 4.0, [0.5] * (late - 1) + [0.96], seed=seed)
    make_run(tmp_path / "c", -1.0, [0.96] * 3, seed=3)  # has no partner
    # gaps of -200, -100 and -300 steps: t(.975, 2) x 100 / sqrt(3), and 2 of 8 flips are as far from 0
    assert "Gate logit -1 minus 4: -200 +- 248 steps until 95 %, p = 0.250" in tool(str(tmp_path))


def test_a_folder_without_runs_is_an_error(tmp_path: Path, tool: Callable[..., str]) -> None:
    with pytest.raises(SystemExit, match="error: there is no run in"):
        tool(str(tmp_path))
