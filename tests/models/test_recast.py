"""A recast convolution: equal to the convolution where it should be, to a loop over the formula everywhere."""

from __future__ import annotations

import copy
import io
import math
import pickle
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from fourier_probe.errors import ModelError
from fourier_probe.models.gpsa import attend as gpsa
from fourier_probe.models.gpsa.cost import multiply_adds
from fourier_probe.models.gpsa.layer import GPSAConv2d, refusal
from fourier_probe.models.gpsa.recast import added_parameters, logit_change, recast, recast_
from fourier_probe.models.gpsa.sizes import default_head_dim

SHAPES: list[dict[str, Any]] = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "padding": 0, "bias": False},
    {"kernel_size": 2, "padding": 0},
    {"kernel_size": 2, "stride": 2},
    {"kernel_size": 5, "padding": 2, "groups": 4},
    {"kernel_size": 3, "padding": 1, "groups": 2, "stride": 2},
    {"kernel_size": 3, "padding": 2, "dilation": 2, "stride": (2, 1)},
    {"kernel_size": (1, 3), "padding": (0, 1)},
    {"kernel_size": (4, 3), "padding": (2, 1), "stride": (1, 2)},
    {"kernel_size": 3, "padding": 4},
    {"kernel_size": 3, "padding": "same", "dilation": 2},
    {"kernel_size": 4, "padding": "same", "dilation": 2},
    {"kernel_size": (2, 4), "padding": "same"},
    {"kernel_size": (3, 2), "padding": "valid"},
    {"kernel_size": 7, "padding": 3, "stride": 3},
]
GRIDS = [(8, 8), (7, 11), (16, 13)]  # at 7 x 11 and above, most cases have more pairs than `gpsa.DENSE`


def _conv(dtype: torch.dtype = torch.double, **options: Any) -> nn.Conv2d:
    torch.manual_seed(1)
    return nn.Conv2d(4, 8, **options).to(dtype)


def _error(got: Tensor, expected: Tensor) -> float:
    return float(((got - expected).abs().max() / expected.abs().max()).detach())


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("options", SHAPES, ids=str)
def test_the_function_is_the_convolutions(options: dict[str, Any]) -> None:
    """Borders included, in float64, within rounding."""
    conv = _conv(**options)
    layer = recast(conv, locality_strength=60.0, gate=60.0)
    for grid in GRIDS:
        maps = torch.randn(2, 4, *grid, dtype=torch.double)
        expected = conv(maps)
        assert layer.output_grid(*grid) == expected.shape[2:]
        assert _error(layer(maps), expected) < 1e-12


def _unsettle(layer: GPSAConv2d) -> None:
    """Move every new parameter off its start."""
    with torch.no_grad():
        layer.attention_centre.add_(0.4 * torch.randn_like(layer.attention_centre))
        layer.locality_strength.copy_(0.2 + torch.rand_like(layer.locality_strength))
        layer.gate.copy_(torch.randn_like(layer.gate))
        layer.query_weight.mul_(5)
        layer.key_weight.mul_(5)


def _naive(layer: GPSAConv2d, conv: nn.Conv2d, maps: Tensor) -> Tensor:
    """The definition, pixel by pixel."""
    (B, C, H, W), (Kh, Kw), D = maps.shape, conv.kernel_size, layer.head_dim
    if conv.padding == "same":
        totals = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        before, after = [t // 2 for t in totals], [t - t // 2 for t in totals]
    else:
        before = after = [0, 0] if conv.padding == "valid" else list(conv.padding)  # type: ignore[arg-type]
    Ho, Wo = layer.output_grid(H, W)
    out = torch.zeros(B, conv.out_channels, Ho, Wo, dtype=maps.dtype)
    out += conv.bias[:, None, None] if conv.bias is not None else 0
    share_in, share_out = C // conv.groups, conv.out_channels // conv.groups
    queries = layer.query_weight.view(Kh * Kw, D, C)
    keys = layer.key_weight.view(Kh * Kw, D, C)
    for h in range(Kh * Kw):
        gate = 1 / (1 + math.exp(-float(layer.gate[h])))
        alpha, (cy, cx) = float(layer.locality_strength[h]), layer.attention_centre[h].tolist()
        for oy in range(Ho):
            for ox in range(Wo):
                y, x = oy * conv.stride[0], ox * conv.stride[1]
                local = {
                    (ky, kx): math.exp(-alpha * ((ky - y - cy) ** 2 + (kx - x - cx) ** 2))
                    for ky in range(-before[0], H + after[0])
                    for kx in range(-before[1], W + after[1])
                }
                total = sum(local.values())
                inside = [local[ky, kx] / total for ky in range(H) for kx in range(W)]
                positional = torch.tensor(inside, dtype=maps.dtype)
                for b in range(B):
                    q = queries[h] @ maps[b, :, min(y, H - 1), min(x, W - 1)]
                    scores = (keys[h] @ maps[b].flatten(1)).t() @ q / math.sqrt(D)
                    weights = (1 - gate) * scores.softmax(0) + gate * positional
                    seen = maps[b].flatten(1) @ weights  # (C,)
                    for group in range(conv.groups):
                        o = slice(group * share_out, (group + 1) * share_out)
                        kernel = conv.weight[o, :, h // Kw, h % Kw]
                        out[b, o, oy, ox] += kernel @ seen[group * share_in : (group + 1) * share_in]
    return out


@pytest.mark.parametrize("dense", [0, gpsa.DENSE])  # an axis at a time, and as one map
@pytest.mark.parametrize("options", SHAPES, ids=str)
@torch.no_grad()
def test_the_function_is_the_formula(options: dict[str, Any], dense: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fourier_probe.models.gpsa.layer.DENSE", dense)
    conv = _conv(**options)
    layer = recast(conv, head_dim=3)
    _unsettle(layer)
    maps = torch.randn(2, 4, 4, 5, dtype=torch.double)
    if options["kernel_size"] == 7:
        maps = torch.randn(1, 4, 3, 4, dtype=torch.double)
    expected = _naive(layer, conv, maps)
    assert _error(layer(maps), expected) < 1e-12
    assert torch.allclose(layer(maps[0]), layer(maps)[0])


@pytest.mark.parametrize(("dense", "fold"), [(0, False), (gpsa.DENSE, False), (gpsa.DENSE, True)])
def test_gradients(dense: int, fold: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fourier_probe.models.gpsa.layer.DENSE", dense)
    monkeypatch.setattr("fourier_probe.models.gpsa.layer.folds", lambda *_: fold)
    layer = recast(nn.Conv2d(2, 2, 2, stride=(1, 2), padding=1).double(), head_dim=1)
    _unsettle(layer)
    parameters = dict(layer.named_parameters())
    maps = torch.randn(2, 2, 2, 3, dtype=torch.double, requires_grad=True)

    def run(maps: Tensor, *values: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(layer, dict(zip(parameters, values, strict=True)), maps)
        return out

    assert torch.autograd.gradcheck(run, (maps, *(p.detach().requires_grad_() for p in parameters.values())))


@pytest.mark.parametrize("bias", [True, False])
def test_a_kernel_on_the_values_is_the_same_layer(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs and gradients, with the kernel before attention and after it."""
    torch.manual_seed(0)
    layer = recast(nn.Conv2d(6, 8, 3, padding=1, bias=bias), gate=0.5, locality_strength=1.0)
    _unsettle(layer)
    maps = torch.randn(5, 6, 9, 8)
    found = {}
    for fold in (False, True):
        monkeypatch.setattr("fourier_probe.models.gpsa.layer.folds", lambda *_, fold=fold: fold)
        layer.zero_grad()
        mine = maps.clone().requires_grad_()
        out = layer(mine)
        out.square().mean().backward()
        gradients = {name: parameter.grad.clone() for name, parameter in layer.named_parameters()}
        found[fold] = {**gradients, "out": out.detach(), "maps": mine.grad}
    for name, expected in found[False].items():
        assert _error(found[True][name], expected) < 2e-6, name


def test_no_tensor_of_what_each_head_sees_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 16 x 16 the widest tensor that is kept for the backward pass is that of queries and keys."""
    layer, saved = recast(nn.Conv2d(8, 8, 3, padding=1)), []
    maps = torch.randn(4, 8, 16, 16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        layer(maps).sum().backward()
    assert max(saved) <= max(9 * 256 * 256, 4 * 2 * 9 * layer.head_dim * 256)  # the positional map, or those
    monkeypatch.setattr("fourier_probe.models.gpsa.layer.folds", lambda *_: False)
    assert gpsa.BLOCK < 9 * 256 * 256 <= gpsa.IMAGE  # one image at a time, whole


@pytest.mark.parametrize("grid", [(6, 6), (12, 10)])
def test_every_parameter_learns_at_the_default_start(grid: tuple[int, int]) -> None:
    layer = recast(nn.Conv2d(6, 6, 3, padding=1, groups=2))
    layer(torch.randn(2, 6, *grid)).square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None and (parameter.grad != 0).any(), name


def test_the_parameters_are_the_convolutions_own() -> None:
    conv = nn.Conv2d(4, 6, 3, padding=1).eval()
    layer = recast(conv)
    assert layer.weight is conv.weight and layer.bias is conv.bias and not layer.training
    assert set(conv.state_dict()) < set(layer.state_dict())
    assert conv(torch.zeros(1, 4, 5, 5)).shape == (1, 6, 5, 5)  # the convolution still works
    assert recast(nn.Conv2d(4, 6, 3, bias=False)).bias is None
    new = {n for n, _ in layer.named_parameters()} - {"weight", "bias"}
    assert new == {n for names in added_parameters(layer).values() for n in names}
    assert layer.added_parameters() == sum(layer.get_parameter(name).numel() for name in new)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("grid", [(8, 8), (9, 12)])
def test_dtype_follows_the_convolution(dtype: torch.dtype, grid: tuple[int, int]) -> None:
    layer = recast(_conv(dtype, kernel_size=3, padding=1))
    assert all(tensor.dtype == dtype for tensor in layer.state_dict().values())
    out = layer(torch.randn(2, 4, *grid).to(dtype))
    assert out.dtype == dtype and out.isfinite().all()


@pytest.mark.parametrize("grid", [(8, 8), (9, 12)])
def test_autocast(grid: tuple[int, int]) -> None:
    conv = _conv(torch.float32, kernel_size=3, padding=1)
    layer = recast(conv, locality_strength=20.0, gate=10.0)
    maps = torch.randn(2, 4, *grid)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(maps)
        out.float().square().sum().backward()
    assert out.dtype == torch.bfloat16
    assert _error(out.float(), conv(maps)) < 0.02
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


def test_device_follows_the_convolution() -> None:
    layer = recast(nn.Conv2d(4, 4, 3, device="meta"))
    assert {tensor.device.type for tensor in layer.state_dict().values()} == {"meta"}


def test_channels_last() -> None:
    conv = _conv(kernel_size=3, padding=1).to(memory_format=torch.channels_last)
    layer = recast(conv)
    maps = torch.randn(2, 4, 8, 8, dtype=torch.double)
    assert torch.allclose(layer(maps.to(memory_format=torch.channels_last)), layer(maps))


def test_one_layer_takes_every_grid_also_after_inference_mode() -> None:
    layer = recast(_conv(kernel_size=3, padding=1), locality_strength=60.0, gate=60.0)
    conv = _conv(kernel_size=3, padding=1)
    with torch.inference_mode():
        layer(torch.randn(1, 4, 9, 9, dtype=torch.double))
    for size in range(3, 23):
        maps = torch.randn(1, 4, size, 9, dtype=torch.double)
        out = layer(maps)
        assert _error(out, conv(maps)) < 1e-12
        out.sum().backward()


def test_copies_and_saved_states() -> None:
    layer = recast(_conv(kernel_size=3, padding=1))
    _unsettle(layer)
    layer.anneal(gate=1.5, locality=0.5)
    maps = torch.randn(1, 4, 6, 6, dtype=torch.double)
    expected = layer(maps)
    assert torch.equal(copy.deepcopy(layer)(maps), expected)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = recast(_conv(kernel_size=3, padding=1))
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(maps), expected)


@pytest.mark.slow
def test_compiled_layers_agree() -> None:
    """Traced whole, no graph break; run without generating code."""
    conv = _conv(torch.float32, kernel_size=3, padding=1)
    layer = recast(conv)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True, dynamic=False)
    for grid in ((8, 8), (9, 10)):
        maps = torch.randn(2, 4, *grid)
        assert torch.allclose(compiled(maps), layer(maps), atol=1e-5)
        compiled(maps).sum().backward()


def test_randomness_is_passed_in() -> None:
    conv = _conv(kernel_size=3)
    state = torch.get_rng_state()
    first, again = recast(conv), recast(conv)
    other = recast(conv, generator=torch.Generator().manual_seed(7))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.query_weight, again.query_weight)
    assert not torch.equal(first.query_weight, other.query_weight)
    assert not torch.equal(first.query_weight, first.key_weight)


def test_halves_add_up_and_attention_is_what_is_applied() -> None:
    for grid in ((5, 4), (12, 9)):
        layer = recast(_conv(kernel_size=3, padding=1))
        _unsettle(layer)
        maps = torch.randn(2, 4, *grid, dtype=torch.double)
        content, positional = layer.halves(maps)
        assert layer.bias is not None
        assert torch.allclose(content + positional + layer.bias[:, None, None], layer(maps), atol=1e-12)
        seen = torch.einsum("bhnm,bcm->bchn", layer.attention(maps), maps.flatten(2))
        out = torch.einsum("oct,bctn->bon", layer.weight.flatten(2), seen) + layer.bias[:, None]
        assert torch.allclose(out.view(2, 8, *grid), layer(maps), atol=1e-12)


def test_annealing_shifts_gate_and_locality() -> None:
    conv = _conv(kernel_size=3, padding=1)
    maps = torch.randn(1, 4, 8, 8, dtype=torch.double)
    layer = recast(conv, locality_strength=1.0, gate=1.0)
    loose = layer(maps)
    layer.anneal(gate=59.0, locality=59.0)
    assert _error(layer(maps), conv(maps)) < 1e-12
    assert layer.gates().min() == 1.0
    layer.anneal()
    assert torch.equal(layer(maps), loose)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), "padding mode 'circular'"),
        (nn.Conv2d(2, 2, 1), "1x1"),
        (nn.Conv1d(2, 2, 3), "Conv1d is not an nn.Conv2d"),
        (timm.layers.StdConv2d(2, 2, 3), "StdConv2d is a subclass"),
        (torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 2, 3)), "ParametrizedConv2d is a subclass"),
        (recast(nn.Conv2d(2, 2, 3)), "recast already"),
    ],
)
def test_refusals_name_the_reason(module: Any, words: str) -> None:
    assert words in refusal(module)
    with pytest.raises(ModelError, match=words.replace("(", r"\(")):
        recast(module)


def test_bad_options_and_inputs() -> None:
    conv = nn.Conv2d(2, 2, 3)
    with pytest.raises(ModelError, match="head_dim must be at least 1, got 0"):
        recast(conv, head_dim=0)
    with pytest.raises(ModelError, match="finite numbers"):
        recast(conv, gate=math.inf)
    layer = recast(conv)
    with pytest.raises(ModelError, match=r"expected \(B, 2, H, W\), got \(1, 3, 8, 8\)"):
        layer(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ModelError, match=r"2 x 2 input .* smaller than the kernel"):
        layer(torch.zeros(1, 2, 2, 2))


def test_a_whole_network_changes_little_in_place() -> None:
    torch.manual_seed(0)
    # timm's last norm of a block starts at zero, which would hide every recast layer from the logits.
    model = timm.create_model("resnet18", num_classes=10, zero_init_last=False).eval()
    images = torch.randn(2, 3, 64, 64)
    names = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    with torch.no_grad():
        before = model(images)
        assert recast_(model, names, locality_strength=20.0, gate=12.0) == names
        assert (model(images) - before).abs().max() < 1e-3 * before.abs().max()
    assert sum(isinstance(m, GPSAConv2d) for m in model.modules()) == len(names) == 16
    groups = added_parameters(model)
    assert groups["gates"][0] == "layer1.0.conv1.gate"
    assert {len(groups["positions"]), len(groups["qk"])} == {32}


def test_the_change_of_the_logits_is_reported_and_the_model_left_alone() -> None:
    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=10, zero_init_last=False).train()
    images = torch.randn(2, 3, 64, 64)
    names = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    change = logit_change(model, names, images)
    assert model.training and list(model.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        was = model.eval()(images)
        recast_(model, names)
        assert change == pytest.approx(_error(model(images), was), rel=1e-4)
    assert 1e-3 < change < 0.1


def test_the_change_of_the_logits_takes_the_options_of_recast() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Flatten())
    images = torch.randn(2, 2, 6, 6)
    close = logit_change(model, ["0"], images, locality_strength=60.0, gate=60.0, head_dim=2)
    assert close < 1e-5 < 0.1 < logit_change(model, ["0"], images, locality_strength=1.0, gate=0.0)
    with pytest.raises(ModelError, match="no module 'conv'"):
        logit_change(model, ["conv"], images)
    with pytest.raises(ModelError, match=r"largest logit is 0\.0"):
        logit_change(nn.Sequential(nn.Conv2d(2, 4, 3, bias=False)), ["0"], torch.zeros(1, 2, 6, 6))

    class Pair(nn.Sequential):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x), x

    with pytest.raises(ModelError, match=r"expected logits in a tensor, but Pair returns"):
        logit_change(Pair(nn.Conv2d(2, 4, 3)), ["0"], images)


def test_a_convolution_used_twice_is_replaced_twice() -> None:
    conv = nn.Conv2d(2, 2, 3, padding=1)
    model = nn.Sequential(conv, nn.ReLU(), conv)
    assert recast_(model, ["2"]) == ["2"]
    assert isinstance(model[0], GPSAConv2d) and model[0] is model[2]
    with pytest.raises(ModelError, match="named twice"):
        recast_(nn.Sequential(conv), ["0", "0"])


def test_recasting_is_all_or_none() -> None:
    model = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 1))
    with pytest.raises(ModelError, match="recast 1: a 1x1 convolution"):
        recast_(model, ["0", "1"])
    assert type(model[0]) is nn.Conv2d
    model = timm.create_model("resnet18")
    with pytest.raises(ModelError, match=r"no module 'layer3\.0\.conv'.*Did you mean layer3\.0\.conv[12]"):
        recast_(model, ["layer3.0.conv"])
    with pytest.raises(ModelError, match="no module ''"):
        recast_(nn.Conv2d(2, 2, 3), [""])


def test_the_width_of_queries_and_keys_follows_the_kernel() -> None:
    assert [default_head_dim(nn.Conv2d(c, c, 3)) for c in (16, 64, 256)] == [4, 8, 16]
    depthwise = nn.Conv2d(672, 672, 5, groups=672, padding=2)
    assert default_head_dim(depthwise) == 4
    layer = recast(depthwise)
    assert layer.added_parameters() == 25 * (2 * 4 * 672 + 4) < 9 * depthwise.weight.numel()


def test_multiply_adds_are_those_of_the_matrix_products() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    for grid in ((8, 8), (16, 12)):
        for conv in (nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(8, 8, 5, padding=2, stride=2, groups=8)):
            layer = recast(conv)
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                layer(torch.randn(1, 8, *grid))
            expected = multiply_adds(conv, grid)
            queries, keys = math.prod(layer.output_grid(*grid)), math.prod(grid)
            if queries * keys <= gpsa.DENSE:
                expected -= layer.heads * queries * keys  # mixing the maps is no product
            assert counter.get_total_flops() == 2 * expected
            assert multiply_adds(layer, grid) == multiply_adds(conv, grid)


def test_a_saved_object_of_earlier_versions_finds_its_class() -> None:
    """The layer had the path `models.gpsa.recast.GPSAConv2d` before it got a module of its own."""
    assert pickle.loads(b"cfourier_probe.models.gpsa.recast\nGPSAConv2d\n.") is GPSAConv2d  # noqa: S301
