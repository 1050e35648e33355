"""Small networks of kinds that the field knows and no list of ours names, with what their code says."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from unusual import Chain, Conv, Feed, Maps, Mix, Tokens, Unusual, mlp  # type: ignore[import-not-found]

C, N, HEADS = 16, 64, 2


class Block(nn.Module):
    """A mixer and an MLP, each added."""

    def __init__(self, mixer: nn.Module) -> None:
        super().__init__()
        self.mixer, self.feed = mixer, Feed()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(x)
        out: Tensor = x + self.feed(x)
        return out


class MixTokens(nn.Module):
    """MLP-Mixer: an MLP over positions."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mlp = nn.LayerNorm(C), nn.Sequential(nn.Linear(N, 32), nn.GELU(), nn.Linear(32, N))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.mlp(self.norm(x).transpose(1, 2)).transpose(1, 2)
        return out


class Fourier(nn.Module):
    """FNet: the real part of a Fourier transform over positions and features."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(C)

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.fft(torch.fft.fft(self.norm(x), dim=-1), dim=1).real


class Scan(nn.Module):
    """A selective scan in plain torch, one token after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.gates, self.out = nn.LayerNorm(C), nn.Linear(C, 3 * C), nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        decay, write, read = self.gates(self.norm(x)).chunk(3, -1)
        state, seen = torch.zeros_like(x[:, 0]), []
        for index in range(x.shape[1]):
            state = decay[:, index].sigmoid() * state + write[:, index]
            seen.append(read[:, index] * state)
        out: Tensor = self.out(torch.stack(seen, 1))
        return out


class BothWays(nn.Module):
    """Scans forwards and backwards, in one addition."""

    def __init__(self) -> None:
        super().__init__()
        self.there, self.back = Scan(), Scan()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.there(x) + self.back(x.flip(1)).flip(1)
        return out


class ConvMixer(nn.Module):
    """A residual depthwise convolution, then a pointwise one without a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise, self.pointwise = nn.Conv2d(C, C, 3, padding=1, groups=C), nn.Conv2d(C, C, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(C) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.norms[0](F.gelu(self.depthwise(x)))
        out: Tensor = self.norms[1](F.gelu(self.pointwise(x)))
        return out


class Projected(nn.Module):
    """A residual block with a projected shortcut where the channels change."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(channels, C, 3, padding=1), nn.Conv2d(C, C, 3, padding=1)
        self.shortcut = nn.Conv2d(channels, C, 1) if channels != C else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.shortcut(x) + self.two(F.silu(self.one(F.silu(x))))
        return out


class MixMaps(nn.Module):
    """Attention over the positions of a map, added."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = Mix()

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        out: Tensor = x + self.mix(tokens).transpose(1, 2).view_as(x)
        return out


class Diffusion(nn.Module):
    """A U-Net of residual blocks, attention in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, C, 3, padding=1), Projected(C)
        self.shrink, self.middle, self.attend = nn.Conv2d(C, C, 3, 2, 1), Projected(C), MixMaps()
        self.up, self.head = Projected(2 * C), nn.Conv2d(C, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        fine = self.down(self.stem(F.avg_pool2d(images, 4)))
        x = self.attend(self.middle(self.shrink(fine)))
        x = torch.cat([F.interpolate(x, scale_factor=2), fine], 1)
        out: Tensor = self.head(self.up(x))
        return out


class Cross(nn.Module):
    """Queries of one sequence, keys and values of another."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.kv, self.out = nn.Linear(C, C), nn.Linear(C, 2 * C), nn.Linear(C, C)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        k, v = self.kv(other).chunk(2, -1)
        out: Tensor = self.out(F.scaled_dot_product_attention(self.q(x), k, v))
        return out


class Perceiver(nn.Module):
    """Latents that read the patches; all additions are on latents."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.latents = nn.Conv2d(3, C, 8, 8), nn.Parameter(torch.randn(1, 9, C))
        self.read, self.mix, self.feed = (nn.ModuleList(part() for _ in range(2)) for part in (Cross, Mix, Feed))

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)
        latents = self.latents.expand(len(x), -1, -1)
        for read, mix, feed in zip(self.read, self.mix, self.feed, strict=True):
            latents = latents + read(latents, x)
            latents = latents + mix(latents)
            latents = latents + feed(latents)
        return latents.mean(1)


class Slots(nn.Module):
    """Slot attention over a small encoder: the softmax is over slots."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, C, 5, 4, 2), nn.ReLU(), nn.Conv2d(C, C, 5, 2, 2), nn.ReLU())
        self.place, self.slots = nn.Parameter(torch.randn(1, N, C)), nn.Parameter(torch.randn(1, 5, C))
        self.q, self.kv, self.gru, self.feed = nn.Linear(C, C), nn.Linear(C, 2 * C), nn.GRUCell(C, C), Feed()

    def forward(self, images: Tensor) -> Tensor:
        x = self.encoder(images).flatten(2).transpose(1, 2) + self.place
        k, v = self.kv(x).chunk(2, -1)
        slots = self.slots.expand(len(x), -1, -1)
        for _ in range(2):
            weights = (self.q(slots) @ k.transpose(1, 2)).softmax(1)
            updates = weights / weights.sum(-1, keepdim=True) @ v
            slots = self.gru(updates.reshape(-1, C), slots.reshape(-1, C)).view_as(slots)
            slots = slots + self.feed(slots)
        return slots


class Capsules(nn.Module):
    """Two convolutions, then capsules routed by agreement."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, C, 9, 4, 4), nn.Conv2d(C, C, 9, 2, 4)
        self.weight = nn.Parameter(0.1 * torch.randn(4, 4, 8))

    def forward(self, images: Tensor) -> Tensor:
        x = self.two(self.one(images).relu())
        capsules = x.flatten(2).transpose(1, 2).reshape(len(x), -1, 4)
        votes = torch.einsum("bnd,dkh->bnkh", capsules, self.weight)
        logits = votes.new_zeros(votes.shape[:3])
        for _ in range(3):
            found = torch.tanh((logits.softmax(2)[..., None] * votes).sum(1))
            logits = logits + (votes * found[:, None]).sum(-1)
        return found.norm(dim=-1)


class Hyper(nn.Module):
    """A residual convolution with a kernel for each image, by groups."""

    def __init__(self) -> None:
        super().__init__()
        self.make = nn.Linear(C, C * C * 9)

    def forward(self, x: Tensor) -> Tensor:
        B, _, H, W = x.shape
        kernels = self.make(x.mean((2, 3))).view(B * C, C, 3, 3)
        branch = F.conv2d(x.reshape(1, B * C, H, W), 0.1 * kernels, padding=1, groups=B).view(B, C, H, W)
        return x + branch


class Neighbours(nn.Module):
    """Attention of each position to the nine around it, by unfold."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(C), nn.Linear(C, 3 * C), nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        B, n, _ = x.shape
        side = int(n**0.5)
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        k, v = (
            F.unfold(each.transpose(1, 2).reshape(B, C, side, side), 3, padding=1).view(B, C, 9, n) for each in (k, v)
        )
        weights = torch.einsum("bnc,bckn->bnk", q, k).softmax(-1)
        out: Tensor = self.out(torch.einsum("bnk,bckn->bnc", weights, v))
        return out


class Dual(nn.Module):
    """CrossViT: coarse and fine patches, blocks of their own, class tokens that read the other's patches."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = nn.ModuleList([nn.Conv2d(3, C, 8, 8), nn.Conv2d(3, C, 16, 16)])
        self.blocks = nn.ModuleList(nn.Sequential(Block(Mix()), Block(Mix())) for _ in range(2))
        self.token, self.cross = nn.Parameter(torch.randn(1, 1, C)), nn.ModuleList(Cross() for _ in range(2))

    def forward(self, images: Tensor) -> Tensor:
        streams = []
        for cut, blocks in zip(self.cut, self.blocks, strict=True):
            x = cut(images).flatten(2).transpose(1, 2)
            streams.append(blocks(torch.cat([self.token.expand(len(x), -1, -1), x], 1)))
        first, second = streams
        ends = [
            a[:, :1] + c(a[:, :1], b) for a, b, c in ((first, second, self.cross[0]), (second, first, self.cross[1]))
        ]
        return torch.cat(ends, 1).mean(1)


class Supervised(nn.Module):
    """Residual convolutions with a head after each stage; all outputs in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shrink = nn.Conv2d(3, C, 4, 4), nn.Conv2d(C, C, 2, 2)
        self.stages = nn.ModuleList(nn.Sequential(Conv(), Conv()) for _ in range(2))
        self.heads = nn.ModuleList(nn.Conv2d(C, 5, 1) for _ in range(2))

    def forward(self, images: Tensor) -> dict[str, Any]:
        first = self.stages[0](self.stem(images))
        second = self.stages[1](self.shrink(first))
        return {"aux": [self.heads[0](first)], "out": self.heads[1](second).mean((2, 3))}


class Clip(nn.Module):
    """An image as a clip of four frames, residual convolutions in three dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.layers = (
            nn.Conv3d(3, C, (1, 8, 8), (1, 8, 8)),
            nn.ModuleList(nn.Conv3d(C, C, 3, 1, 1) for _ in range(2)),
        )

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images[:, :, None].repeat(1, 1, 4, 1, 1))
        for layer in self.layers:
            x = x + layer(x).relu()
        return x.mean((2, 3, 4))


class ComplexConv(nn.Module):
    """A residual convolution of complex numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.whole = nn.Conv2d(C, C, 3, 1, 1, dtype=torch.complex64), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.whole(x) + self.conv(x)
        return out


class Complex(nn.Module):
    """Residual convolutions, the later of complex numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.real, self.blocks = nn.Conv2d(3, C, 8, 8), Conv(), nn.Sequential(ComplexConv(), ComplexConv())

    def forward(self, images: Tensor) -> Tensor:
        x = self.real(self.stem(images))
        out: Tensor = self.blocks(torch.complex(x, -x)).abs().mean((2, 3))
        return out


class Rotations(nn.Module):
    """A residual convolution of the group of four rotations, (B, C, G, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.1 * torch.randn(4, 4, 4, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        turned = [self.weight.rot90(turn, (3, 4)).roll(turn, 2).reshape(4, 16, 3, 3) for turn in range(4)]
        kernel = torch.stack(turned, 1).reshape(16, 16, 3, 3)
        out = F.conv2d(x.flatten(1, 2), kernel, padding=1).unflatten(1, (4, 4))
        return x + out.relu()


class Equivariant(nn.Module):
    """Group convolutions from a lifting one to the mean over the group."""

    def __init__(self) -> None:
        super().__init__()
        self.lift, self.blocks = nn.Conv2d(3, 4, 4, 4), nn.Sequential(*[Rotations() for _ in range(3)])

    def forward(self, images: Tensor) -> Tensor:
        lifted = torch.stack([self.lift(images.rot90(turn, (2, 3))).rot90(-turn, (2, 3)) for turn in range(4)], 2)
        out: Tensor = self.blocks(lifted).mean((2, 3, 4))
        return out


class Middle(Tokens):
    """Registers between the upper and the lower half of the patches."""

    def before(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, :32], torch.ones(len(x), 2, C), x[:, 32:]], 1)


class Dropping(Tokens):
    """The half of the tokens with the largest norm go on."""

    def before(self, x: Tensor) -> Tensor:
        best = x.norm(dim=-1).topk(32, 1).indices.sort(1).values
        return x.gather(1, best[..., None].expand(-1, -1, C))


class Experts(nn.Module):
    """Each token through the expert that its router chooses."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.router, self.experts = nn.LayerNorm(C), nn.Linear(C, 3), nn.ModuleList(mlp() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        weight, choice = self.router(y).softmax(-1).max(-1)
        out = torch.zeros_like(y)
        for index, expert in enumerate(self.experts):
            out[choice == index] = expert(y[choice == index])
        return out * weight[..., None]


class Expert(nn.Module):
    """Attention, then experts."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.experts = Mix(), Experts()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mix(x)
        out: Tensor = x + self.experts(x)
        return out


class RungeKutta(nn.Module):
    """A neural ODE: one step of fourth order, its inner additions inside the branch."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Sequential(nn.Conv2d(C, C, 3, padding=1), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        one = self.slope(x)
        two = self.slope(x + 0.5 * one)
        three = self.slope(x + 0.5 * two)
        four = self.slope(x + three)
        out: Tensor = x + (one + 2 * two + 2 * three + four) / 6
        return out


class Last(nn.Module):
    """Channels last between two permutations."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mlp = nn.LayerNorm(C), mlp()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.mlp(self.norm(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return out


class Flips(nn.Module):
    """Blocks on (B, C, H, W), then on (B, H, W, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = nn.Conv2d(3, C, 8, 8), Last(), nn.ModuleList(Feed() for _ in range(2))

    def forward(self, images: Tensor) -> Tensor:
        x = self.one(self.stem(images)).permute(0, 2, 3, 1)
        for feed in self.two:
            x = x + feed(x)
        return x.mean((1, 2))


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.function(x)
        return out


def of_functions() -> nn.Sequential:
    """Layers and functions in a row; two functions add."""
    smooth = Function(lambda x: x + F.avg_pool2d(x, 3, 1, 1))
    return nn.Sequential(
        nn.Conv2d(3, C, 4, 4), Function(torch.relu), smooth, nn.Conv2d(C, C, 3, padding=1),
        Function(lambda x: x + x.tanh()), nn.Conv2d(C, C, 2, 2), Function(lambda x: x.mean((2, 3))),
    )  # fmt: skip


class Highway(nn.Module):
    """x (1 - t) + f(x) t."""

    def __init__(self) -> None:
        super().__init__()
        self.feed, self.gate = Feed(), nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(x).sigmoid()
        out: Tensor = x * (1 - gate) + self.feed(x) * gate
        return out


def scaled_skip(x: Tensor, branch: Tensor) -> Tensor:
    """DeepNorm and others: the stream is scaled before the addition."""
    return 0.8 * x + branch


def scaled_less(x: Tensor, branch: Tensor) -> Tensor:
    """The same with a minus."""
    return x / 1.2 - branch


class Packed(nn.Module):
    """All tokens of all images in one sequence (B N, C), as networks for images of several sizes have them."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.layers = (
            nn.Conv2d(3, C, 8, 8),
            nn.ModuleList(nn.ModuleList([Mix(), Feed()]) for _ in range(3)),
        )

    def forward(self, images: Tensor) -> Tensor:
        B = len(images)
        x = self.patches(images).flatten(2).transpose(1, 2).reshape(-1, C)
        for mix, feed in self.layers:
            x = x + mix(x.view(B, -1, C)).reshape(-1, C)
            x = x + feed(x)
        return x.view(B, -1, C).mean(1)


class Unshuffled(nn.Module):
    """Pixels folded into channels, then residual convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(48, C, 1), nn.Sequential(Conv(), Conv())

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.blocks(self.stem(F.pixel_unshuffle(images, 4))).mean((2, 3))
        return out


class Zigzag(Tokens):
    """Tokens in an order of their own, by an index."""

    def before(self, x: Tensor) -> Tensor:
        order = torch.arange(N).view(8, 8)
        order[1::2] = order[1::2].flip(1)
        return x[:, order.flatten()]


class Denoiser(nn.Module):
    """DnCNN: plain convolutions, and the image minus what they give."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3, C, 3, padding=1), *(nn.Conv2d(C, C, 3, padding=1) for _ in range(2))])
        self.last = nn.Conv2d(C, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for layer in self.layers:
            x = layer(x).relu()
        out: Tensor = images - self.last(x)
        return out


class Windows(nn.Module):
    """Attention inside windows by einsum and six dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(C), nn.Linear(C, 3 * C), nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        B = len(x)
        parts = self.qkv(self.norm(x)).view(B, 2, 4, 2, 4, 3 * C).permute(0, 1, 3, 2, 4, 5).reshape(B, 4, 16, 3 * C)
        q, k, v = parts.chunk(3, -1)
        weights = torch.einsum("bwic,bwjc->bwij", q, k).softmax(-1)
        mixed = torch.einsum("bwij,bwjc->bwic", weights, v)
        out: Tensor = self.out(mixed.view(B, 2, 2, 4, 4, C).permute(0, 1, 3, 2, 4, 5).reshape(B, N, C))
        return out


class Colours(Maps):
    """Colours are mixed before the first layer."""

    def __init__(self) -> None:
        super().__init__(Conv)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = super().forward(images + 0.1 * images.mean(1, keepdim=True).expand_as(images).tanh())
        return out


class Context(nn.Module):
    """A residual convolution, gated by a mean over positions that are weighed by a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.weigh, self.gate = nn.Conv2d(C, C, 3, padding=1), nn.Conv2d(C, 1, 1), nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).relu()
        weights = self.weigh(y).flatten(2).softmax(-1)
        mean = (weights @ y.flatten(2).transpose(1, 2))[:, 0]
        out: Tensor = x + y * self.gate(mean).sigmoid()[:, :, None, None]
        return out


class Widening(nn.Module):
    """A residual layer, a projection to more channels, another residual layer."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(C, C, 3, padding=1), nn.Conv2d(2 * C, 2 * C, 3, padding=1)
        self.project = nn.Conv2d(C, 2 * C, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(x + self.one(x))
        out: Tensor = x + self.two(x)
        return out


def espcn() -> nn.Sequential:
    """Plain convolutions, and pixels made of channels in the end."""
    return nn.Sequential(
        nn.Conv2d(3, C, 5, padding=2), nn.Tanh(), nn.Conv2d(C, C, 3, padding=1), nn.Tanh(),
        nn.Conv2d(C, 12, 3, padding=1), nn.PixelShuffle(2),
    )  # fmt: skip


class Restorer(nn.Module):
    """Residual blocks under a long skip, then a tail of twice the size."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, C, 3, padding=1), nn.Sequential(Conv(), Conv())
        self.end = nn.Conv2d(C, C, 3, padding=1)
        self.tail = nn.Sequential(nn.Conv2d(C, 4 * C, 3, padding=1), nn.PixelShuffle(2), nn.Conv2d(C, 3, 3, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        out: Tensor = self.tail(x + self.end(self.body(x)))
        return out + F.interpolate(images, scale_factor=2)


class Turned(Mix):  # type: ignore[misc]
    """Values are turned by their positions, as rotary embeddings turn queries: an addition inside the branch."""

    def value(self, v: Tensor) -> Tensor:
        angles = torch.arange(v.shape[2])[:, None] / torch.arange(1, v.shape[3] + 1)
        return v * angles.cos() + v.flip(-1) * angles.sin()


class TurnedApart(Tokens):
    """The same on tokens in an order that is not known: six steps that are not read, and no more."""

    def __init__(self) -> None:
        super().__init__(mix=Turned)

    def before(self, x: Tensor) -> Tensor:
        return x[:, torch.randperm(N)]


LAST = "; no module takes in the last sum, which is read at the addition"
OF_THE_FIELD = [
    Unusual("MLP-Mixer", lambda: Chain(lambda: Block(MixTokens())), 7, "stem + 2 x 3"),
    Unusual("FNet", lambda: Chain(lambda: Block(Fourier())), 7, "stem + 2 x 3"),
    Unusual("a scan over tokens", lambda: Chain(lambda: Block(Scan())), 7, "stem + 2 x 3"),
    Unusual("scans there and back", lambda: Chain(BothWays), 4, "stem + 3"),
    Unusual("ConvMixer", lambda: Maps(ConvMixer), 4, "stem + 3", size=(64, 96)),
    Unusual("a U-Net with attention", Diffusion, 6, "stem + 4 blocks + 1 subsampling", attention=1),
    Unusual("Perceiver", Perceiver, 1, "patches; 3 x 2 additions are on latents, the first a constant", 5, "none"),
    Unusual("slot attention", Slots, 1, "encoder; 2 additions are on slots", 2, "none of its axes"),
    Unusual("capsules", Capsules, 1, "maps before routing; 3 additions to logits", 3, "no module takes in"),
    Unusual("a kernel for each image", lambda: Maps(Hyper), 4, "stem + 3", size=(64, 96)),
    Unusual("neighbourhood attention", lambda: Chain(lambda: Block(Neighbours())), 7, "stem + 2 x 3", attention=3),
    Unusual("two streams of patches", Dual, 10, "stem + 2 x 2 on each; the patches of the second", attention=4,
            ends=(1, 0)),
    Unusual("a head after each stage", Supervised, 6, "stem + 4 + 1 subsampling"),
    Unusual("three dimensions", Clip, 3, "stem + 2" + LAST),
    Unusual("complex numbers", Complex, 2, "stem + 1; 2 blocks are complex", 2, "complex numbers"),
    Unusual("a group of rotations", Equivariant, 4, "stem + 3"),
    Unusual("registers in the middle", Middle, 1, "patches; 6 gathered", 6, "gathered"),
    Unusual("tokens dropped by their norm", Dropping, 1, "patches; 6 gathered", 6, "gathered"),
    Unusual("experts", lambda: Chain(Expert), 7, "stem + 2 x 3", attention=3),
    Unusual("a Runge-Kutta step", lambda: Maps(RungeKutta), 4, "stem + 3", size=(64, 96)),
    Unusual("channels first, then last", Flips, 4, "stem + 3" + LAST),
    Unusual("a graph", lambda: torch.fx.symbolic_trace(Maps(Conv)), 4, "stem + 3" + LAST),
    Unusual("layers and functions", of_functions, 3, "stem + 2; nothing follows the last convolution"),
    Unusual("highway", lambda: Chain(Highway), 4, "stem + 3"),
    Unusual("a scaled skip", lambda: Tokens(scaled_skip), 7, "stem + 2 x 3", attention=3),
    Unusual("a scaled skip minus the rest", lambda: Tokens(scaled_less), 7, "stem + 2 x 3", attention=3),
    Unusual("packed tokens", Packed, 7, "stem + 6" + LAST, attention=3),
    Unusual("pixels folded into channels", Unshuffled, 3, "stem + 2", size=(64, 96)),
    Unusual("zigzag", Zigzag, 1, "patches; 6 gathered", 6, "gathered"),
    Unusual("a denoiser", Denoiser, 4, "4 convolutions; what is added to the image is no step", size=(64, 96)),
    Unusual("ESPCN", espcn, 3, "3 convolutions; the tail is no point", size=(32, 48)),
    Unusual("a restorer", Restorer, 4, "stem + 2 + the long skip; the tail is no point", size=(32, 48)),
    Unusual("rotations of unordered tokens", TurnedApart, 1, "patches; 6 gathered, rotations are none", 6, "gathered"),
    Unusual("colours mixed first", Colours, 4, "stem + 3; the colours' own addition is no step"),
    Unusual("global context", lambda: Maps(Context), 4, "stem + 3; positions are weighed, no token asks"),
    Unusual("windows by einsum", lambda: Chain(lambda: Block(Windows())), 7, "stem + 2 x 3", attention=3),
    Unusual("a projection between two sums", lambda: Maps(Widening, 1), 3, "stem + 2"),
]  # fmt: skip
