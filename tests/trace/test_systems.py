"""Networks as the field adapts them: read right, by the test's own hooks, or refused with the reason."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import fourier_probe as fp
from fourier_probe.errors import ProbeError
from fourier_probe.probe.capture import Capture
from fourier_probe.probe.points import find_points
from fourier_probe.probe.survey import survey

GRID, WIDTH, DEPTH = 8, 16, 3


class Adapter(nn.Module):
    """A bottleneck with a residual of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(WIDTH, 4), nn.Linear(4, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(self.down(x).relu())


class LoRA(nn.Module):
    """A linear layer with a low-rank update."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base, self.a, self.b = (
            base,
            nn.Linear(base.in_features, 2, bias=False),
            nn.Linear(2, base.out_features, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        update: Tensor = self.b(self.a(x))
        return self.base(x) + 0.5 * update


class Attend(nn.Module):
    """Self-attention of two heads."""

    def __init__(self, inner: int = WIDTH) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * inner), nn.Linear(inner, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        B, N, _ = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, 2, -1).permute(2, 0, 3, 1, 4)
        mixed = ((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).reshape(B, N, -1)
        out: Tensor = self.proj(mixed)
        return out


class Block(nn.Module):
    """A transformer block."""

    def __init__(self, attn: int = WIDTH, mlp: int = 32, adapter: bool = False) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn = Attend(attn)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, mlp), nn.GELU(), nn.Linear(mlp, WIDTH))
        self.adapter = Adapter() if adapter else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.adapter(self.mlp(self.norm2(x)))


class ViT(nn.Module):
    """Patches of 4 pixels on 32; a class token first."""

    def __init__(self, blocks: list[nn.Module] | None = None) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, WIDTH, 4, 4)
        self.cls, self.pos = nn.Parameter(torch.randn(1, 1, WIDTH)), nn.Parameter(torch.randn(1, GRID**2 + 1, WIDTH))
        self.blocks = nn.ModuleList(blocks or [Block() for _ in range(DEPTH)])
        self.head = nn.Linear(WIDTH, 5)

    def tokens(self, x: Tensor) -> Tensor:
        return torch.cat([self.cls.expand(len(x), -1, -1), self.patch(x).flatten(2).transpose(1, 2)], 1) + self.pos

    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens(x)
        for block in self.blocks:
            x = block(x)
        scores: Tensor = self.head(x[:, 0])
        return scores


class Prompted(ViT):
    """Prompt tuning: extra tokens behind the class token, once (shallow), or other ones before every block (deep)."""

    def __init__(self, deep: bool) -> None:
        super().__init__()
        self.deep, self.prompts = deep, nn.Parameter(torch.randn(DEPTH, 1, 3, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens(x)
        for index, block in enumerate(self.blocks):
            if index == 0 or self.deep:
                rest = x[:, 1:] if index == 0 else x[:, 4:]
                x = torch.cat([x[:, :1], self.prompts[index].expand(len(x), -1, -1), rest], 1)
            x = block(x)
        scores: Tensor = self.head(x[:, 0])
        return scores


class Merging(ViT):
    """Token merging: the most similar pairs of tokens become one, after each block."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens(x)
        for block in self.blocks:
            x = block(x)
            first, second = x[:, 1::2], x[:, 2::2]
            n = min(first.shape[1], second.shape[1])
            similar = (first[:, :n] * second[:, :n]).sum(-1)
            order = similar.argsort(1)[..., None].expand(-1, -1, WIDTH)
            apart = [part[:, :n].gather(1, order) for part in (first, second)]
            merged = (apart[0][:, n // 2 :] + apart[1][:, n // 2 :]) / 2
            x = torch.cat([x[:, :1], apart[0][:, : n // 2], apart[1][:, : n // 2], merged], 1)
        scores: Tensor = self.head(x[:, 0])
        return scores


def with_lora() -> nn.Module:
    net = ViT()
    for block in net.blocks:
        block.attn.qkv = LoRA(block.attn.qkv)  # type: ignore[union-attr, arg-type, assignment]
    return net


def fake_quantised() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.ao.quantization import FakeQuantize, MinMaxObserver, QConfig, prepare_qat

        net = ViT().train()
        fake = FakeQuantize.with_args(observer=MinMaxObserver, quant_min=0, quant_max=255)
        weights = FakeQuantize.with_args(observer=MinMaxObserver, quant_min=-128, quant_max=127, dtype=torch.qint8)
        net.qconfig = QConfig(activation=fake, weight=weights)  # type: ignore[assignment]
        ready: nn.Module = prepare_qat(net)
        ready(torch.rand(4, 3, 32, 32))
    return ready.eval()


def by_torchao(name: str) -> Callable[[], nn.Module]:
    """Weights, or weights and activations, as torchao's tensors hold them; or fake-quantised for training."""

    def make() -> nn.Module:
        pytest.importorskip("torchao", reason="of the extra compat")
        from torchao import quantization
        from torchao.quantization.qat import IntxFakeQuantizeConfig, QATConfig

        configs = {
            "int8 weights": quantization.Int8WeightOnlyConfig,
            "int8": quantization.Int8DynamicActivationInt8WeightConfig,
            "float8 weights": quantization.Float8WeightOnlyConfig,
            "fake": lambda: QATConfig(weight_config=IntxFakeQuantizeConfig(torch.int8, group_size=16), step="prepare"),
        }
        net = ViT().eval()
        quantization.quantize_(net, configs[name]())
        return net.eval()

    return make


SYSTEMS: dict[str, Callable[[], nn.Module]] = {
    "plain": ViT,
    "prompts": lambda: Prompted(deep=False),
    "deep prompts": lambda: Prompted(deep=True),
    "adapters": lambda: ViT([Block(adapter=True) for _ in range(DEPTH)]),
    "LoRA": with_lora,
    "pruned": lambda: ViT([Block(16, 32), Block(8, 12), Block(12, 20)]),
    "fake-quantised": fake_quantised,
    **{f"torchao, {name}": by_torchao(name) for name in ("int8 weights", "int8", "float8 weights", "fake")},
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_stream_of_an_adapted_network_is_that_of_own_hooks(name: str) -> None:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchao's, of its own types
        net = SYSTEMS[name]().eval()
    images = torch.rand(2, 3, 32, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seen = survey(net, images)
        points = {point.name: point for point in seen.own}
    wanted = {f"blocks.{i}": i for i in range(DEPTH)} | {f"blocks.{i}+attn": i for i in range(DEPTH)}
    assert set(wanted) <= set(points), sorted(points)
    assert seen.coverage.self_check is not None and not seen.coverage.self_check.misplaced
    own: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _m, inputs, output=None: own.__setitem__(name, inputs[0] if output is None else output)

    handles = []
    for i, block in enumerate(net.blocks):  # type: ignore[arg-type, union-attr]
        handles += [block.register_forward_hook(keep(f"blocks.{i}")),
                    block.norm2.register_forward_pre_hook(keep(f"blocks.{i}+attn"))]  # fmt: skip
    found: dict[str, Tensor] = {}
    chosen = [points[name] for name in wanted]
    with torch.no_grad(), Capture(net, chosen, lambda point, maps: found.__setitem__(point.name, maps.clone())):
        net(images)
    for handle in handles:
        handle.remove()
    for name in wanted:
        maps = own[name][:, -(GRID**2) :].transpose(1, 2).reshape(2, WIDTH, GRID, GRID)
        assert torch.allclose(found[name], maps, atol=1e-5), name


def test_merged_tokens_are_not_laid_out() -> None:
    torch.manual_seed(0)
    net, images = Merging().eval(), torch.rand(2, 3, 32, 32)
    try:
        seen = survey(net, images)
    except ProbeError as error:
        assert "order" in str(error) or "grid" in str(error)
        return
    assert all(
        point.layout.grid == (GRID, GRID) and not point.name.startswith(("blocks.1", "blocks.2")) for point in seen.own
    )
    assert seen.coverage.unread and any("order" in step.reason for step in seen.coverage.unread)


def test_they_are_analyzed_as_any_network() -> None:
    torch.manual_seed(0)
    spectra = fp.analyze(SYSTEMS["deep prompts"](), [torch.rand(20, 3, 32, 32)])
    assert {point.grid for point in spectra.points} == {(GRID, GRID)}
    assert find_points(ViT(), torch.rand(1, 3, 32, 32))
