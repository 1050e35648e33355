"""Plans: what they multiply to, what they are refused for, and what their runs are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fourier_probe.errors import ModelError, ProbeError, TrainingError
from fourier_probe.studies import Analysis, SweepPlan
from fourier_probe.training import TrainConfig
from fourier_probe.training.naming import content, content_name

STUDY = """
[shared]
epochs = 6
probe-every = 2

[axes]
model = ["cifar_resnet8", {model = "cifar_vit_patch4", epochs = 9}]
data_scale = [0.1, 1]
schedule = ["none", "linear", {schedule = "constant", weighted_mean = true}]
seed = [0, 1]

[[set]]
when = {model = "cifar_res*", schedule = ["linear", "constant"]}
convert = ["layer3*"]
lr = 1e-2

[[exclude]]
model = "cifar_vit*"
schedule = ["linear", "constant"]

[[exclude]]
data_scale = 0.1
seed = 1

[analyze]
images = 30
attention = true
"""


def study(tmp_path: Path, text: str = STUDY) -> SweepPlan:
    (tmp_path / "study.toml").write_text(text)
    return SweepPlan.read(tmp_path / "study.toml")


def test_a_plan_multiplies_its_axes_in_order(tmp_path: Path) -> None:
    plan = study(tmp_path)
    runs = [(e.config.model, e.config.data_scale, e.config.schedule, e.config.seed) for e in plan.entries]
    cnn = [("cifar_resnet8", f, s, n) for f in (0.1, 1.0) for s in ("none", "linear", "constant") for n in (0, 1)]
    vit = [("cifar_vit_patch4", f, "none", n) for f in (0.1, 1.0) for n in (0, 1)]
    assert runs == [each for each in cnn + vit if each[1::2] != (0.1, 1)]
    assert plan.name == "study"
    assert plan.analysis == Analysis(30, attention=True)
    assert plan.notes == ()
    assert plan.axes == ("model", "epochs", "data_scale", "schedule", "weighted_mean", "seed", "convert", "lr")


def test_tables_and_rules_give_options(tmp_path: Path) -> None:
    by_name = {(e.config.model, e.config.schedule): e.config for e in study(tmp_path).entries}
    assert by_name["cifar_vit_patch4", "none"].epochs == 9
    assert by_name["cifar_resnet8", "none"].epochs == 6
    assert by_name["cifar_resnet8", "constant"].weighted_mean
    assert by_name["cifar_resnet8", "linear"].convert == ("layer3*",)
    assert by_name["cifar_resnet8", "linear"].lr == 0.01
    assert by_name["cifar_resnet8", "none"].lr == 0.1  # of the recipe
    assert all(config.probe_every == 2 for config in by_name.values())


def test_a_table_may_be_the_value_of_an_option() -> None:
    given = [{"width": 4}, {"model_args": {"width": 8}, "lr": 0.2}]
    plan = SweepPlan.of({"shared": {"model": "cifar_resnet8"}, "axes": {"model_args": given}})
    assert [(e.config.model_args, e.config.lr) for e in plan.entries] == [({"width": 4}, 0.1), ({"width": 8}, 0.2)]


def test_the_same_content_appears_once() -> None:
    plan = SweepPlan.of({"axes": {"seed": [0, 1, 0], "schedule": ["none", {"schedule": "none", "at_epoch": 3}]}})
    assert len(plan.entries) == 2  # `none` does not read at_epoch


def test_data_beside_the_plan(tmp_path: Path) -> None:
    (tmp_path / "there.npz").touch()
    plan = SweepPlan.of({"axes": {"data": ["there.npz", "elsewhere.npz", "bundled"]}}, folder=tmp_path)
    assert [e.config.data for e in plan.entries] == [str(tmp_path / "there.npz"), "elsewhere.npz", "bundled"]


def test_a_rule_that_matches_nothing_is_said() -> None:
    plan = SweepPlan.of({"exclude": [{"model": "vgg*"}], "set": [{"when": {"seed": 3}, "lr": 1}]}, where="p.toml")
    assert len(plan.notes) == 2
    assert plan.notes[1] == "p.toml [[exclude]] matches no run: {'model': 'vgg*'}."


def test_an_option_that_two_axes_give_is_said() -> None:
    plan = SweepPlan.of({"axes": {"epochs": [1, 2], "model": [{"model": "cifar_resnet8", "epochs": 4}]}}, where="p")
    assert [entry.config.epochs for entry in plan.entries] == [4]
    assert plan.notes == ("p [axes]: epochs and model both give epochs: that of model, the later, is taken.",)


def test_the_study_of_the_repository() -> None:
    path = Path(__file__).parents[2] / "studies" / "small.toml"
    plan = SweepPlan.read(path)
    assert len(plan.entries) >= 30
    assert plan.notes == ()


BAD: list[tuple[dict[str, Any], type[ProbeError], str]] = [
    ({"axis": {}}, TrainingError, r"p: unknown section 'axis'. Did you mean axes"),
    ({"epochs": 3}, TrainingError, r"p: unknown section 'epochs'. Options that all runs share go under \[shared\]"),
    ({"shared": {"epoch": 3}}, TrainingError, r"p \[shared\]: unknown option 'epoch'. Did you mean .*epochs"),
    ({"axes": {"modle": ["a"]}}, TrainingError, r"p \[axes\]: unknown option 'modle'. Did you mean model"),
    ({"axes": {"seed": 3}}, TrainingError, r"p \[axes\]: seed is 3, expected a list; one value goes under \[shared\]"),
    ({"axes": {"seed": []}}, TrainingError, r"p \[axes\]: seed is empty"),
    ({"axes": {"seed": ["a"]}}, TrainingError, r"p \[axes\] seed: seed is 'a', expected int"),
    ({"axes": {"model": [{"epochs": 3}]}}, TrainingError, r"the table \{'epochs': 3\} does not say model"),
    ({"axes": {"model": [{"model": "vgg", "x": 3}]}}, TrainingError, r"p \[axes\] model: unknown option 'x'"),
    (
        {"axes": {"lr": [0.1, -1.0]}},
        TrainingError,
        r"p, the run of lr = -1.0: --lr is -1.0: expected a number above 0",
    ),
    ({"axes": {"schedule": ["lienar"]}}, TrainingError, r"--schedule is 'lienar': .*Did you mean linear"),
    ({"axes": {"model": ["cifar_resnet9"]}}, ModelError, r"p: .*cifar_resnet9.*Did you mean .*cifar_resnet8"),
    ({"exclude": {"seed": 0}}, TrainingError, r"p: exclude is to be a list of tables: write \[\[exclude\]\]"),
    ({"exclude": [{}]}, TrainingError, r"p \[\[exclude\]\]: is empty, and would match every run"),
    ({"exclude": [{"sed": 0}]}, TrainingError, r"p \[\[exclude\]\]: unknown option 'sed'. Did you mean .*seed"),
    ({"set": [{"lr": 0.1}]}, TrainingError, r"p \[\[set\]\]: expected `when`"),
    ({"set": [{"when": {"seed": 0}}]}, TrainingError, r"p \[\[set\]\]: gives no option"),
    ({"set": [{"when": {"s": 0}, "lr": 1.0}]}, TrainingError, r"p \[\[set\]\] when: unknown option 's'"),
    ({"axes": {"seed": [0, 1]}, "exclude": [{"seed": [0, 1]}]}, TrainingError, r"p has no runs: all 2 combinations"),
    (
        {"axes": {"seed": list(range(1000)), "lr": [0.1] * 1000, "weight_decay": [0.1] * 1000}},
        TrainingError,
        r"p \[axes\]: 1,000 x 1,000 x 1,000 values make 1,000,000,000 combinations: expected at most 20,000",
    ),
    ({"shared": {"epochs": -3}}, TrainingError, "--epochs is -3: expected at least 1"),
    ({"shared": {"batch_size": 0}}, TrainingError, "--batch-size is 0: expected at least 1"),
    ({"shared": {"workers": 10**6}}, TrainingError, "--workers is 1000000: expected from 0 to 4096"),
    ({"shared": {"threads": 10**9}}, TrainingError, "--threads is 1000000000: expected from 0 to 4096"),
    ({"analyze": {"image": 3}}, TrainingError, r"p \[analyze\]: unknown field 'image'. Did you mean images"),
    ({"analyze": {"images": 0}}, TrainingError, r"p \[analyze\]: images is 0: expected at least 1"),
    ({"analyze": {"attention": 1}}, TrainingError, r"p \[analyze\]: attention: expected bool, got int"),
]


@pytest.mark.parametrize(("values", "kind", "message"), BAD, ids=[str(bad[0])[:60] for bad in BAD])
def test_bad_plans(values: dict[str, Any], kind: type[ProbeError], message: str) -> None:
    with pytest.raises(kind, match=message):
        SweepPlan.of(values, where="p")


@pytest.mark.parametrize("text", ["[axes\nseed = [1]", "[shared]\nseed = 0\n[shared]\nseed = 1"])
def test_text_that_is_no_toml(text: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"cannot read .*study.toml: .*line"):
        study(tmp_path, text)


def test_names_are_the_same_everywhere() -> None:
    config = TrainConfig.of({"model": "cifar_resnet8", "data": "/one/tiny.npz", "schedule": "linear", "seed": 1})
    assert content_name(config) == "cifar_resnet8-tiny-linear-seed1-a87e150a"
    moved = TrainConfig.of({**config.to_json(), "data": "../other/tiny.npz", "threads": 3, "checkpoint_at": [2]})
    assert content_name(moved) == content_name(config)


@pytest.mark.parametrize("other", [{"seed": 2}, {"lr": 0.05}, {"schedule": "reverse"}, {"data": "a/tiny2.npz"}])
def test_other_content_has_another_name(other: dict[str, Any]) -> None:
    given = {"model": "cifar_resnet8", "data": "/one/tiny.npz", "schedule": "linear"}
    assert content_name(TrainConfig.of(given)) != content_name(TrainConfig.of(given, **other))


def test_content_leaves_out_defaults_and_what_none_does_not_read() -> None:
    assert content(TrainConfig(at_epoch=3.0, gate_lr_mult=2.0)) == {"model": "cifar_resnet20", "data": "bundled"}
    assert content(TrainConfig(schedule="linear", gate_lr_mult=2.0))["gate_lr_mult"] == 2.0


def test_an_analysis_is_the_one_that_was_asked_for(tmp_path: Path) -> None:
    """Other images or attention in the plan: the run is analyzed again; a damaged file: too."""
    from fourier_probe.studies.plan import Analysis
    from fourier_probe.studies.tasks import holds_analysis

    asked = Analysis(images=500, attention=True)
    assert not holds_analysis(tmp_path, asked)
    (tmp_path / "spectra.json").write_text('{"images": {"asked": {"images": 500, "attention": true}}}')
    assert holds_analysis(tmp_path, asked)
    assert not holds_analysis(tmp_path, Analysis(images=500))
    (tmp_path / "spectra.json").write_text("{")
    assert not holds_analysis(tmp_path, asked)
