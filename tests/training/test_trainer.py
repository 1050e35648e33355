"""What a run is: its folder, its groups and rates, its subset, its average, its conversions."""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fourier_probe import checkpoints
from fourier_probe.data import open_data, subset
from fourier_probe.errors import TrainingError
from fourier_probe.models import zoo
from fourier_probe.models.gpsa.layer import GPSAConv2d
from fourier_probe.models.gpsa.recast import added_parameters
from fourier_probe.targets import resolve
from fourier_probe.training import Progress, PRSSchedule, TrainConfig, train
from fourier_probe.training.convert import convert_
from fourier_probe.training.inputs import derived
from fourier_probe.training.optim import adopt, cross_entropy, make_optimizer, make_scheduler
from fourier_probe.training.plan import Plan
from fourier_probe.training.splits import open_splits

from .tiny import CLASSES, last, log, tiny

# --- the folder ---


def test_the_folder_holds_what_design_names(whole: Path) -> None:
    names = {file.name for file in whole.iterdir()}
    assert names == {
        ".lock", "config.json", "metrics.csv", "steps.csv", "conversions.csv", "last.pt", "best.pt", "epoch-001.pt",
    }  # fmt: skip
    record = json.loads((whole / "config.json").read_text())
    assert record["config"]["schedule"] == "linear"
    assert record["plan"]["schedule"]["epochs"]["layer3.0.conv2"] == 1
    assert {"torch", "timm", "numpy", "python", "fourier-probe"} <= set(record["versions"])
    assert set(record["environment"]) == {"torch", "device", "threads", "world"}
    assert record["images"] == {"train": 48, "val": 16, "test": 16, "digest": record["images"]["digest"]}
    assert record["result"]["epochs"] == 4


def test_metrics_have_a_row_an_epoch_and_the_test_only_in_the_last(whole: Path) -> None:
    rows = log(whole, times=True)
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3"]
    assert [row["test_acc"] != "" for row in rows] == [False, False, False, True]
    assert [int(row["converted"]) for row in rows] == [0, 2, 4, 6]
    assert int(rows[-1]["parameters"]) > int(rows[0]["parameters"])
    assert int(rows[-1]["multiply_adds"]) > int(rows[0]["multiply_adds"])
    assert all(float(row["seconds"]) > 0 and 0 <= float(row["ema_val_acc"]) <= 1 for row in rows)


def test_the_test_set_can_be_left_alone(data: Path, tmp_path: Path) -> None:
    train(tiny(data, epochs=1, schedule="none", test=False), tmp_path / "run")
    result = json.loads((tmp_path / "run" / "config.json").read_text())["result"]
    assert "test_acc" not in result
    assert 0 <= result["best_val_acc"] <= 1


def test_a_switch_leaves_the_loss_on_the_fixed_images_almost_where_it_was(whole: Path) -> None:
    rows = log(whole, "conversions.csv")
    assert [(row["layer"], row["epoch"]) for row in rows] == [
        (f"layer{stage}.0.conv{conv}", str(4 - stage)) for stage in (3, 2, 1) for conv in (1, 2)
    ]
    for row in rows:
        assert float(row["loss_after"]) == pytest.approx(float(row["loss_before"]), rel=0.01)
        assert row["loss_after"] != row["loss_before"]
        assert row["images"] == "48"


def test_both_sides_of_a_switch_follow_from_the_kept_state(data: Path, whole: Path) -> None:
    """The logged loss before the first switch is that of epoch-001.pt on the 48 training images, computed here."""
    from fourier_probe.training.plan import make_model

    config = TrainConfig.from_json(json.loads((whole / "config.json").read_text())["config"])
    splits = open_splits(config)
    model, _, spec = make_model(config, splits)
    kept = checkpoints.read(whole / "epoch-001.pt").payload
    model.load_state_dict(kept["state_dict"])
    model.eval()
    assert splits.train.pixels is not None
    assert splits.train.labels is not None
    images = torch.from_numpy(splits.train.pixels).permute(0, 3, 1, 2).double() / 255
    inputs = ((images - torch.tensor(spec.mean)[:, None, None]) / torch.tensor(spec.std)[:, None, None]).float()
    loss = nn.functional.cross_entropy(model(inputs), torch.from_numpy(splits.train.labels)).item()
    assert float(log(whole, "conversions.csv")[0]["loss_before"]) == pytest.approx(loss, rel=1e-5)


def test_a_run_is_a_target_and_its_checkpoints_rebuild(whole: Path) -> None:
    target = resolve(str(whole))
    assert target.model is not None
    assert target.provenance.weights == "ema"
    assert target.provenance.schedule == "linear"
    assert target.input_spec().size == (12, 12)
    assert sum(isinstance(module, GPSAConv2d) for module in target.model.modules()) == 6
    best = checkpoints.read(whole / "best.pt")
    assert "optimizer" not in best.payload
    checkpoints.build(best)


def test_best_is_the_epoch_of_the_best_validation(whole: Path) -> None:
    scores = [float(row["ema_val_acc"]) for row in log(whole)]
    assert checkpoints.read(whole / "best.pt").epoch == 1 + int(np.argmax(scores))


def test_the_same_config_trains_the_same_weights(data: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        train(tiny(data, epochs=1), tmp_path / name)
    one, other = last(tmp_path / "a")["state_dict"], last(tmp_path / "b")["state_dict"]
    assert all(torch.equal(one[key], other[key]) for key in one)
    train(tiny(data, epochs=1, seed=1), tmp_path / "c")
    assert not torch.equal(one["fc.weight"], last(tmp_path / "c")["state_dict"]["fc.weight"])


def test_the_test_set_is_looked_at_once(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fourier_probe.training import inputs

    seen: list[str] = []
    batches = inputs.Evaluation.batches

    def counted(self: inputs.Evaluation, rank: int = 0, world: int = 1) -> Any:
        seen.append(self.images.split)
        return batches(self, rank, world)

    monkeypatch.setattr(inputs.Evaluation, "batches", counted)
    train(tiny(data), tmp_path / "run")
    assert seen.count("test") == 1
    assert seen[-1] == "test"


def test_something_is_learned(data: Path, tmp_path: Path) -> None:
    train(tiny(data, epochs=12, schedule="linear", early_epoch=6, late_epoch=3, hflip=0.0), tmp_path / "run")
    assert float(log(tmp_path / "run")[-1]["val_acc"]) > 0.7  # chance is 0.25


def test_a_vit_trains(data: Path, tmp_path: Path) -> None:
    args = {"embed_dim": 16, "depth": 1, "num_heads": 1}
    config = TrainConfig.of(model="cifar_vit_patch4", model_args=args, data=str(data), epochs=1, batch_size=16)
    assert (config.opt, config.recipe) == ("adamw", "vit-small")
    train(config, tmp_path / "run")
    assert checkpoints.read(tmp_path / "run" / "last.pt").model_args["img_size"] == [12, 12]
    assert resolve(str(tmp_path / "run")).model is not None


@pytest.mark.parametrize(
    ("model", "recipe"),
    [
        ("cifar_resnet20", "cnn-small"),
        ("cifar_convit", "vit-small"),
        ("eit_small", "eit-small"),
        ("resnet18", "cnn"),
        ("convit_tiny", "vit"),
        ("coatnet_0_rw_224", "vit"),
        ("eit_mini", "eit"),
    ],
)
def test_each_family_has_its_recipe(model: str, recipe: str) -> None:
    config = TrainConfig.of(model=model)
    assert config.recipe == recipe
    if recipe == "eit":  # lr 1e-3 a 512 images, no stochastic depth
        assert (config.lr, config.batch_size, config.drop_path, config.mixup) == (1e-3, 512, 0.0, 0.8)


@pytest.mark.parametrize("kind", ["reverse", "constant", "random", "stage", "stage-end", "soft"])
def test_every_schedule_trains(kind: str, data: Path, tmp_path: Path) -> None:
    train(tiny(data, schedule=kind, epochs=3, early_epoch=2, convert=("layer3*", "layer2*conv2")), tmp_path / "run")
    assert len(log(tmp_path / "run", "conversions.csv")) == 3


# --- subsets and lengths ---


def test_the_scaled_set_is_nested_and_validation_lies_inside(data: Path) -> None:
    labels = open_data(str(data), "train").labels
    assert labels is not None
    small = open_splits(tiny(data, data_scale=0.5))
    assert small.val is not None
    assert len(small.train) + len(small.val) == 32
    assert small.available == 48
    assert set(subset(labels, 0.25, seed=0)) < set(subset(labels, 0.5, seed=0))
    assert np.bincount(small.train.labels).tolist() == [6] * CLASSES


def test_iso_steps_keeps_the_number_of_steps(data: Path, tmp_path: Path) -> None:
    train(tiny(data, data_scale=0.5, iso_steps=True, batch_size=8, schedule="linear"), tmp_path / "run")
    plan = json.loads((tmp_path / "run" / "config.json").read_text())["plan"]
    assert plan["epochs"] * plan["steps"] == 4 * (48 // 8)
    assert sorted(set(plan["schedule"]["epochs"].values()))[0] == 2  # epoch 1 of 4 is epoch 2 of 8


# --- groups and rates ---


def test_what_keeps_out_of_weight_decay() -> None:
    for name in ("cifar_resnet8", "cifar_vit_patch4"):
        model = zoo.create(name, num_classes=3)
        optimizer = make_optimizer(model, TrainConfig())
        names = {id(parameter): key for key, parameter in model.named_parameters()}
        groups = {group["name"]: {names[id(p)] for p in group["params"]} for group in optimizer.param_groups}
        assert list(groups) == ["decay", "no_decay", "positions", "gates", "qk"]
        assert not groups["positions"] | groups["gates"] | groups["qk"]
        assert all(key.endswith("weight") and "norm" not in key and "bn" not in key for key in groups["decay"])
        assert groups["decay"] | groups["no_decay"] == set(names.values())
    assert {"pos_embed", "cls_token"} <= groups["no_decay"]


def test_parameters_new_at_a_conversion_follow_the_planned_rate() -> None:
    model = zoo.create("cifar_resnet8", num_classes=3, width=4)
    config = TrainConfig(gate_lr_mult=10.0, new_lr_mult=0.5, epochs=4, warmup_epochs=0.0)
    optimizer = make_optimizer(model, config)
    scheduler = make_scheduler(optimizer, config, Plan(4, 10, PRSSchedule.none(), (), 1.0))
    from fourier_probe.models.gpsa.recast import recast_

    layers = recast_(model, ["layer3.0.conv2", "layer3.0.conv1"])
    adopt(optimizer, model, layers)
    scheduler.step_update(20)
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    half = 0.1 * (1 + math.cos(math.pi / 2)) / 2
    assert rates == pytest.approx(
        {"decay": half, "no_decay": half, "positions": 10 * half, "gates": 10 * half, "qk": half / 2}
    )
    ours = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert ours == {id(p) for p in model.parameters()}
    decays = {group["name"]: group["weight_decay"] for group in optimizer.param_groups}
    assert decays["gates"] == decays["positions"] == 0 < decays["qk"]
    assert len(added_parameters(model)["gates"]) == 2


def test_converted_layers_learn(whole: Path) -> None:
    payload = last(whole)
    groups = {group["name"]: group["params"] for group in payload["optimizer"]["param_groups"]}
    assert [len(groups[name]) for name in ("positions", "gates", "qk")] == [12, 6, 12]
    state = payload["state_dict"]
    for layer in ("layer3.0.conv2", "layer2.0.conv1"):
        assert not torch.equal(state[f"{layer}.gate"], torch.full((9,), 4.0))
    slots = payload["optimizer"]["state"]
    assert all(torch.isfinite(slots[index]["momentum_buffer"]).all() for index in groups["qk"])


def test_initial_queries_depend_on_seed_and_layer_only() -> None:
    def weights(seed: int, *layers: str) -> dict[str, torch.Tensor]:
        model = zoo.create("cifar_resnet20", num_classes=3)
        config = TrainConfig(seed=seed)
        convert_(layers, model, None, make_optimizer(model, config), config)
        return {layer: model.get_submodule(layer).get_parameter("query_weight") for layer in layers}

    one, other = weights(0, "layer3.1.conv1", "layer3.1.conv2"), weights(0, "layer3.1.conv2")
    assert torch.equal(one["layer3.1.conv2"], other["layer3.1.conv2"])
    assert not torch.equal(one["layer3.1.conv1"], one["layer3.1.conv2"])
    assert not torch.equal(weights(1, "layer3.1.conv2")["layer3.1.conv2"], other["layer3.1.conv2"])


@pytest.mark.parametrize("opt", ["sgd", "momentum", "adamw", "lamb", "nadamw"])
def test_optimizers_with_empty_groups_step(opt: str) -> None:
    model = nn.Linear(3, 2)
    optimizer = make_optimizer(model, TrainConfig(opt=opt))
    model(torch.ones(1, 3)).sum().backward()
    before = model.weight.detach().clone()
    optimizer.step()
    assert not torch.equal(before, model.weight)


def test_an_unknown_optimizer_is_named() -> None:
    with pytest.raises(TrainingError, match=r"--opt adamx.*Did you mean adam"):
        make_optimizer(nn.Linear(2, 2), TrainConfig(opt="adamx"))


def test_the_rate_warms_up_and_decays(data: Path, tmp_path: Path) -> None:
    rates: list[float] = []

    class Listen(Progress):
        def epoch(self, row: dict[str, Any]) -> None:
            rates.append(row["lr"])

    train(tiny(data, warmup_epochs=1.0), tmp_path / "run", progress=Listen())
    peak = tiny(data).lr
    assert rates[0] == pytest.approx(peak * (1 + math.cos(math.pi / 4)) / 2)
    assert rates[-1] == pytest.approx(0, abs=1e-9)


def test_cross_entropy_of_labels_equals_that_of_their_one_hot() -> None:
    logits, labels = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 1, 0])
    hot = nn.functional.one_hot(labels, 3).float()
    assert torch.allclose(cross_entropy(logits, labels), cross_entropy(logits, hot))
    smooth = hot * 0.9 + 0.1 / 3
    assert torch.allclose(cross_entropy(logits, labels, 0.1), cross_entropy(logits, smooth))


# --- the average and the annealing ---


def test_the_average_follows_conversions(whole: Path) -> None:
    payload = last(whole)
    assert list(payload["state_dict"]) == list(payload["state_dict_ema"])
    assert not torch.equal(payload["state_dict"]["fc.weight"], payload["state_dict_ema"]["fc.weight"])


def test_the_average_is_the_weighted_sum_of_the_past(data: Path, tmp_path: Path) -> None:
    train(tiny(data, epochs=1, model_ema=True, model_ema_decay=0.0), tmp_path / "run")
    payload = last(tmp_path / "run")
    for key, value in payload["state_dict"].items():
        if value.is_floating_point():
            torch.testing.assert_close(value, payload["state_dict_ema"][key])


def test_a_soft_schedule_ramps_the_gate(data: Path, tmp_path: Path) -> None:
    shifts: list[float] = []

    class Listen(Progress):
        def epoch(self, row: dict[str, Any]) -> None:
            state = last(tmp_path / "run")["state_dict"]
            if "layer3.0.conv2.gate_shift" in state:
                shifts.append(float(state["layer3.0.conv2.gate_shift"]))

    config = tiny(data, schedule="soft", soft_epochs=2.0, epochs=5, convert=("layer3*conv2",), anneal_gate=6.0)
    train(config, tmp_path / "run", progress=Listen())
    starts = last(tmp_path / "run")["conversions"][0]["epoch"]
    assert starts == 1
    expected = [6 * (1 - (step + 2 / 3) / 2) for step in (0, 1)] + [0.0, 0.0]  # set before the last step of the epoch
    assert shifts == pytest.approx(expected)


# --- other inputs ---


def test_image_files_go_through_timm(tmp_path: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        for index in range(count):
            folder = tmp_path / "photos" / split / f"class{index % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    notes: list[str] = []

    class Listen(Progress):
        def note(self, text: str) -> None:
            notes.append(text)

    config = tiny(tmp_path / "photos", img_size=16, epochs=1, batch_size=4, aa="rand-m3-n1", val_split=0.2)
    train(config, tmp_path / "run", progress=Listen())
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert record["input"]["size"] == [16, 16]
    assert record["model_args"]["in_chans"] == 3
    assert record["images"]["test"] == 4
    assert "val split is tested" in notes[0]


def test_workers_change_nothing(data: Path, tmp_path: Path) -> None:
    for workers in (0, 1):
        train(tiny(data, epochs=2, aa="rand-m5-n1", workers=workers), tmp_path / str(workers))
    one, other = (last(tmp_path / str(workers))["state_dict"] for workers in (0, 1))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_folder_without_splits_has_no_test_set(tmp_path: Path) -> None:
    from PIL import Image

    for index in range(8):
        folder = tmp_path / "photos" / f"class{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (index * 9, 0, 0)).save(folder / f"{index}.png")
    splits = open_splits(tiny(tmp_path / "photos"))
    assert splits.test is None
    assert "no splits" in splits.note


def test_float64_channels_last_and_threads(data: Path, tmp_path: Path) -> None:
    train(tiny(data, epochs=1, model_dtype="float64", channels_last=True), tmp_path / "run")
    assert last(tmp_path / "run")["state_dict"]["fc.weight"].dtype == torch.float64


# --- spectra while training ---


def test_probe_every_writes_spectra_from_epoch_0_on(data: Path, tmp_path: Path) -> None:
    train(tiny(data, probe_every=2, probe_images=8, epochs=3), tmp_path / "run")
    assert sorted(file.name for file in (tmp_path / "run" / "spectra").iterdir()) == [
        "epoch-000.json",
        "epoch-002.json",
    ]
    record = json.loads((tmp_path / "run" / "spectra" / "epoch-002.json").read_text())
    assert record["schema"] == "fourier-probe/spectra"
    assert record["target"]["epoch"] == 2
    assert record["images"]["n"] == 8


def test_probing_changes_nothing_of_the_training(data: Path, tmp_path: Path) -> None:
    for name, every in (("a", 0), ("b", 1)):
        train(tiny(data, epochs=2, probe_every=every, probe_images=8, schedule="constant", at_epoch=1), tmp_path / name)
    one, other = (last(tmp_path / name)["state_dict"] for name in "ab")
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_tensorboard_is_an_extra(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(TrainingError, match=r"pip install 'fourier-probe\[tensorboard\]'"):
        train(tiny(data, log="tensorboard"), tmp_path / "run")


def test_tensorboard_holds_what_metrics_csv_does(data: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tiny(data, epochs=3, log="tensorboard"), tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    rows = log(tmp_path / "run")
    for name in ("train_loss", "val_acc", "converted"):
        scalars = events.Scalars(name)
        assert [each.step for each in scalars] == [0, 1, 2]
        assert [each.value for each in scalars] == pytest.approx([float(row[name]) for row in rows], rel=1e-5)


def test_a_compiled_run_is_the_same_run_across_its_conversions(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dynamo's tracing and no code generation, which takes minutes and rounds differently."""
    traced = []

    def backend(graph: torch.fx.GraphModule, _inputs: Any) -> Any:
        traced.append(sum("softmax" in str(node.target) for node in graph.graph.nodes))
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    for name in ("plain", "compiled"):
        more = {"schedule": "linear", "model_ema": True, "probe_every": 1, "probe_images": 4}
        config = tiny(data, compile=name == "compiled", **more)
        train(config, tmp_path / name)
    one, other = (last(tmp_path / name) for name in ("plain", "compiled"))
    assert traced[0] == 0 < traced[-1]  # compiled again with attention in it
    assert list(one["state_dict"]) == list(other["state_dict"])
    for key, value in one["state_dict"].items():
        assert torch.allclose(value, other["state_dict"][key], atol=1e-5), key


def test_derived_seeds_differ() -> None:
    assert len({derived(*pair) for pair in ((0, 1), (1, 0), (0, 0, 1), (2,))}) == 4


def test_a_batch_larger_than_the_images_says_whose_rate_it_takes(data: Path, tmp_path: Path) -> None:
    notes: list[str] = []

    class Listener(Progress):
        def note(self, text: str) -> None:
            notes.append(text)

    train(tiny(data, epochs=1, batch_size=500, early_epoch=1, late_epoch=0), tmp_path / "run", progress=Listener())
    assert any("steps have 48 images" in note and "pass --batch-size 48" in note for note in notes)
