"""Validations and heat maps on the report page: beside analyses or alone, with figure, table, intervals, source."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import fourier_probe as fp
from fourier_probe.errors import ResultError
from fourier_probe.page import split
from fourier_probe.results.similarity import Similarity


class Net(nn.Module):
    """Two residual steps and a classifier of three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(), Block())
        self.head = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(x).mean((2, 3)))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    return Net()


@pytest.fixture(scope="module")
def batches() -> list[tuple[Tensor, Tensor]]:
    rng = torch.Generator().manual_seed(0)
    return [(torch.rand(8, 3, 8, 8, generator=rng), torch.randint(0, 3, (8,), generator=rng)) for _ in range(3)]


@pytest.fixture(scope="module")
def validation(net: Net, batches: list[tuple[Tensor, Tensor]]) -> fp.Validation:
    return fp.validate(net, batches, lesions=True, hessian=True, label="a <net>")


def test_each_measure_has_a_place_alone_and_beside_an_analysis(
    net: Net, batches: list[tuple[Tensor, Tensor]], validation: fp.Validation, tmp_path: Path
) -> None:
    fp.heatmap([net, net], batches, stride=4, labels=["x", "y"], out=tmp_path / "map")
    fp.heatmap(net, batches, filters=True, bands=2, out=tmp_path / "filters")
    bands = fp.heatmap(net, batches, bands=2, label="c")
    validation.save(tmp_path / "v")
    alone = fp.report([tmp_path, bands], title="A")
    names = ["confusion", "lesions", "hessian", "heatmap", "bands", "filters", "sensitivity"]
    assert re.findall(r'<section id="measure-([a-z]+)"', alone.html) == names
    assert alone.about == "1 validation and 4 heat maps" and alone.labels[0] == "a <net>"
    assert "a &lt;net&gt;" in alone.html and "<net>" not in alone.html and "{{" not in alone.html
    assert alone.html.count("data:image/png;base64,") == alone.html.count("<summary>Table</summary>") == 8
    assert 'id="summary"' not in alone.html and 'href="#measures"' in alone.html
    for heading in ("rank", "rank correlation with the error", "top1_change_low", "error_high"):
        assert f'<th scope="col">{heading}</th>' in alone.html
    assert "Validations and heat maps" in alone.html and "filters</td>" in alone.html
    spectra = fp.analyze(net, [images for images, _ in batches], self_check=False)
    both = fp.report([spectra, validation, tmp_path / "map"])
    assert 'id="summary"' in both.html and 'id="measure-heatmap"' in both.html and "{{" not in both.html
    assert both.about == "1 target on 24 images of your own, 1 validation and 2 heat maps"


def test_heat_maps_of_other_images_are_not_in_one_figure(net: Net, batches: list[tuple[Tensor, Tensor]]) -> None:
    heats = [fp.heatmap(net, batches[k : k + 1], bands=2, label="abc"[k]) for k in (0, 1)]
    again = fp.heatmap(net, batches[:1], bands=2, label="c")
    groups = split([*heats, again])[1].heat_maps
    assert [group.labels for group in groups] == [["a", "c"], ["b"]]


def test_a_damaged_answer_is_named_and_a_file_twice_is_one(validation: fp.Validation, tmp_path: Path) -> None:
    validation.save(tmp_path / "v")
    page = fp.report([tmp_path, tmp_path / "v", tmp_path / "v" / "validation.json"])
    assert page.about == "1 validation"
    assert fp.report([validation, tmp_path / "v"]).labels == ("a <net>", "a <net>#2")
    record = json.loads((tmp_path / "v" / "validation.json").read_text())
    (tmp_path / "v" / "validation.json").write_text(json.dumps({**record, "top1": {"value": "high"}}))
    with pytest.raises(ResultError, match=r"validation\.json is damaged"):
        fp.report(tmp_path)


def test_cka_of_two_networks_has_its_place_beside_that_of_one(
    net: Net, batches: list[tuple[Tensor, Tensor]], tmp_path: Path
) -> None:
    images = [each for each, _ in batches]
    torch.manual_seed(1)
    comparison = fp.compare([net, Net()], images, labels=["a <net>", "b"], cka=True, out=tmp_path / "both")
    alone = fp.report(tmp_path / "both")
    assert alone.about == "1 comparison by CKA" and alone.labels == ("a <net>", "b")
    assert re.findall(r'<section id="measure-([a-z]+)"', alone.html) == ["cka"]
    assert alone.html.count("data:image/png;base64,") == 1 and "<net>" not in alone.html and "{{" not in alone.html
    assert alone.html.count("<td>CKA</td>") == 2 and "comparisons by CKA" in alone.html
    record = next(each for each in comparison.cka if not each.own)
    for value in (record.value[0][0], record.value[-1][-1]):
        assert f"<td>{value:.3g}</td>" in alone.html
    loaded = Similarity.load(tmp_path / "both")
    assert loaded.cka == list(comparison.cka) and loaded.quantile == comparison.rows[0]["quantile"]

    spectra = fp.analyze(net, images, self_check=False, cka=True, label="c")
    beside = fp.report([spectra, comparison])
    assert beside.about == "3 targets on 24 images of your own, 1 comparison by CKA"
    assert beside.labels == ("c", "a <net>", "b") and beside.html.count('id="measure-cka"') == 1
    several = fp.report([comparison, fp.validate(net, batches, label="v"), fp.heatmap(net, batches, bands=2)])
    assert several.about.endswith(", 1 validation, 1 heat map and 1 comparison by CKA")


def test_a_damaged_comparison_by_cka_is_named(net: Net, batches: list[tuple[Tensor, Tensor]], tmp_path: Path) -> None:
    fp.compare([net, net], [each for each, _ in batches], labels=["a", "b"], cka=True, out=tmp_path)
    record = json.loads((tmp_path / "cka.json").read_text())
    for damage in (
        {"labels": ["a"]},
        {"labels": ["a", "z"]},
        {"cka": []},
        {"cka": [{**record["cka"][0], "value": []}]},
    ):
        (tmp_path / "cka.json").write_text(json.dumps({**record, **damage}))
        with pytest.raises(ResultError, match=r"cka\.json is damaged"):
            fp.report(tmp_path)
