"""Small networks as researchers write them, each of an unusual kind, with what their code says: points and unread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

C, HEADS = 16, 2


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(C, 2 * C), nn.GELU(), nn.Linear(2 * C, C))


class Mix(nn.Module):
    """Self-attention after a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(C), nn.Linear(C, 3 * C), nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        B, N, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(B, N, 3, HEADS, C // HEADS).permute(2, 0, 3, 1, 4)
        v = self.value(v)
        mixed = ((q @ k.transpose(-2, -1)) * (C // HEADS) ** -0.5).softmax(-1) @ v
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(B, N, C))
        return out

    def value(self, v: Tensor) -> Tensor:
        return v


class Remembering(Mix):
    """Adds to its values: an addition inside the branch."""

    def value(self, v: Tensor) -> Tensor:
        return v + 0.5 * v.flip(-1)


class Feed(nn.Module):
    """An MLP after a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mlp = nn.LayerNorm(C), mlp()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.mlp(self.norm(x))
        return out


def plus(x: Tensor, branch: Tensor) -> Tensor:
    return x + branch


def in_place(x: Tensor, branch: Tensor) -> Tensor:
    x += branch
    return x


def into_memory(x: Tensor, branch: Tensor) -> Tensor:
    return torch.add(x, branch, out=torch.empty_like(x))


def minus(x: Tensor, branch: Tensor) -> Tensor:
    return x - branch


def towards(x: Tensor, branch: Tensor) -> Tensor:
    return torch.lerp(x, branch, 0.4)


def scaled(x: Tensor, branch: Tensor) -> Tensor:
    return torch.addcmul(x, torch.full((C,), 0.5), branch)


def normalised(x: Tensor, branch: Tensor) -> Tensor:
    return nn.functional.normalize(torch.lerp(x, branch, 0.4), dim=-1)


class Tokens(nn.Module):
    """Patches, layers that a root forward adds, a last norm, the mean."""

    def __init__(self, add: Callable[[Tensor, Tensor], Tensor] = plus, mix: type[Mix] = Mix, depth: int = 3) -> None:
        super().__init__()
        self.patches, self.norm, self.add = nn.Conv2d(3, C, 8, 8), nn.LayerNorm(C), add
        self.layers = nn.ModuleList(nn.ModuleList([mix(), Feed()]) for _ in range(depth))

    def before(self, x: Tensor) -> Tensor:
        return x

    def between(self, x: Tensor, index: int) -> Tensor:
        return x

    def forward(self, images: Tensor) -> Tensor:
        x = self.before(self.patches(images).flatten(2).transpose(1, 2))
        for index, (attention, feed) in enumerate(self.layers):
            x = self.add(x, attention(x))
            x = self.add(x, feed(x))
            x = self.between(x, index)
        out: Tensor = self.norm(x).mean(1)
        return out


class Looped(Tokens):
    """The same two layers three times: two points each time."""

    def __init__(self) -> None:
        super().__init__(depth=1)
        self.layers.extend([self.layers[0], self.layers[0]])


class Late(Tokens):
    """A class token from the second layer on, behind the patches."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, C))

    def between(self, x: Tensor, index: int) -> Tensor:
        return torch.cat([x, self.token.expand(len(x), -1, -1)], 1) if index == 0 else x


class Written(Tokens):
    """Tokens written into memory that was there, behind two registers."""

    def before(self, x: Tensor) -> Tensor:
        memory = torch.zeros(x.shape[0], x.shape[1] + 2, C)
        memory[:, 2:] = x
        return memory


class Apart(Tokens):
    """Registers that attention mixes with the patches, and that the MLP leaves alone."""

    def before(self, x: Tensor) -> Tensor:
        return torch.cat([torch.ones(len(x), 4, C), x], 1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.before(self.patches(images).flatten(2).transpose(1, 2))
        for attention, feed in self.layers:
            x = x + attention(x)
            registers, x = x[:, :4], x[:, 4:]
            x = torch.cat([registers, x + feed(x)], 1)
        out: Tensor = self.norm(x).mean(1)
        return out


class Merging(Tokens):
    """After the first layer eight tokens that attend to all patches go on."""

    def __init__(self) -> None:
        super().__init__()
        self.queries, self.first = nn.Parameter(torch.randn(8, C)), nn.LayerNorm(C)

    def between(self, x: Tensor, index: int) -> Tensor:
        if index:
            return x
        x = self.first(x)
        return (self.queries @ x.transpose(1, 2)).softmax(-1) @ x


class Parallel(nn.Module):
    """Attention and MLP side by side: one addition of three terms."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.feed = Mix(), Feed()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.mix(x) + self.feed(x)
        return out


class Checkpointed(nn.Module):
    """Attention and MLP, computed again in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.feed = Mix(), Feed()

    def run(self, x: Tensor) -> Tensor:
        x = x + self.mix(x)
        out: Tensor = x + self.feed(x)
        return out

    def forward(self, x: Tensor) -> Tensor:
        from torch.utils.checkpoint import checkpoint

        out: Tensor = checkpoint(self.run, x, use_reentrant=False)
        return out


class Mapped(nn.Module):
    """A residual MLP called through `torch.vmap`, image by image."""

    def __init__(self) -> None:
        super().__init__()
        self.feed = Feed()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.vmap(lambda tokens: tokens + self.feed.mlp(self.feed.norm(tokens)))(x)
        return out


class Rearranged(nn.Module):
    """Attention along rows, then along columns, by einops."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.columns, self.feed = Mix(), Mix(), Feed()

    def forward(self, x: Tensor) -> Tensor:
        from einops import rearrange

        h = int(x.shape[1] ** 0.5)
        rows = rearrange(x, "b (h w) c -> (b h) w c", h=h)
        x = x + rearrange(self.rows(rows), "(b h) w c -> b (h w) c", h=h)
        columns = rearrange(x, "b (h w) c -> (b w) h c", h=h)
        x = x + rearrange(self.columns(columns), "(b w) h c -> b (h w) c", w=h)
        out: Tensor = x + self.feed(x)
        return out


class Chain(nn.Module):
    """Patches, blocks one after the other, the mean."""

    def __init__(self, block: type[nn.Module], depth: int = 3) -> None:
        super().__init__()
        self.patches, self.blocks = nn.Conv2d(3, C, 8, 8), nn.Sequential(*[block() for _ in range(depth)])

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.blocks(self.patches(images).flatten(2).transpose(1, 2)).mean(1)
        return out


class Conv(nn.Module):
    """A residual convolution; a half of the channels where asked, as in a reversible network."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(C), nn.Conv2d(C, C, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv(self.norm(x)).relu()
        return out


class Pyramid(nn.Module):
    """Blocks by index, a list of features out, and top-down additions on finer and finer grids."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(3, C, 4, 4), nn.ModuleList(Conv() for _ in range(4))
        self.shrink, self.side = nn.Conv2d(C, C, 2, 2), nn.ModuleList(nn.Conv2d(C, C, 1) for _ in range(2))

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.stem(images)
        features = []
        for index in range(4):
            if index == 2:
                features.append(x)
                x = self.shrink(x)
            x = self.blocks[index](x)
        coarse = self.side[1](x)
        fine = self.side[0](features[0]) + nn.functional.interpolate(coarse, scale_factor=2)
        return [fine, coarse]


class UNet(nn.Module):
    """Convolutions down and up again, joined by channels."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([nn.Conv2d(3, C, 3, padding=1), nn.Conv2d(C, C, 3, padding=1)])
        self.middle = nn.Conv2d(C, C, 3, padding=1)
        self.up = nn.ModuleList([nn.Conv2d(2 * C, C, 3, padding=1), nn.Conv2d(2 * C, C, 3, padding=1)])
        self.pool, self.head = nn.MaxPool2d(2), nn.Conv2d(C, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        first = self.down[0](images).relu()
        second = self.down[1](self.pool(first)).relu()
        x = self.middle(self.pool(second)).relu()
        x = self.up[0](torch.cat([nn.functional.interpolate(x, scale_factor=2), second], 1)).relu()
        x = self.up[1](torch.cat([nn.functional.interpolate(x, scale_factor=2), first], 1)).relu()
        out: Tensor = self.head(x)
        return out


class Reversible(nn.Module):
    """Each half of the channels is changed by the other."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(C // 2, C // 2, 3, padding=1), nn.Conv2d(C // 2, C // 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        a = a + self.one(b).relu()
        b = b + self.two(a).relu()
        return torch.cat([a, b], 1)


class Maps(nn.Module):
    """A strided convolution, blocks on maps, the mean."""

    def __init__(self, block: type[nn.Module], depth: int = 3) -> None:
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(3, C, 4, 4), nn.Sequential(*[block() for _ in range(depth)])

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.blocks(self.stem(images)).mean((2, 3))
        return out


class Growing(nn.Module):
    """A residual convolution, and another on a map four times as large."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = nn.Conv2d(3, C, 8, 8), Conv(), Conv()

    def forward(self, images: Tensor) -> Tensor:
        x = nn.functional.interpolate(self.one(self.stem(images)), scale_factor=2.0, mode="nearest")
        out: Tensor = self.two(x).mean((2, 3))
        return out


class Beside(nn.Module):
    """Attention over what earlier layers gave in place of an addition: nothing is a stream."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, C, 8, 8), nn.LayerNorm(C)
        self.layers, self.weigh = nn.ModuleList(nn.Linear(C, C) for _ in range(3)), nn.Linear(C, 1)

    def forward(self, images: Tensor) -> Tensor:
        seen = [self.patches(images).flatten(2).transpose(1, 2)]
        for layer in self.layers:
            past = torch.stack(seen)
            seen.append(layer((self.weigh(past).softmax(0) * past).sum(0)))
        out: Tensor = self.norm(torch.stack(seen).sum(0)).mean(1)
        return out


@dataclass(frozen=True)
class Unusual:
    """A kind of network: points and unread steps by its code, tokens at the ends of the last map, the last point."""

    name: str
    build: Callable[[], nn.Module]
    points: int
    why: str
    unread: int = 0
    reason: str = ""
    attention: int = 0
    ends: tuple[int, int] = (0, 0)
    size: tuple[int, int] = (64, 64)
    more: Any = None


THREE = "stem + 2 x 3"
UNUSUAL = [
    *[Unusual(f"adds by {add.__name__}", lambda add=add: Tokens(add), 7, THREE, attention=3)
      for add in (plus, in_place, into_memory, minus, towards, scaled)],
    Unusual("a sum that a function normalises", lambda: Tokens(normalised), 7, THREE, attention=3),
    Unusual("an addition inside attention", lambda: Tokens(mix=Remembering), 7, THREE, attention=3),
    Unusual("an oblong image", Tokens, 7, THREE, attention=3, size=(64, 96)),
    Unusual("one pair of layers three times", Looped, 7, THREE, attention=3),
    Unusual("a class token behind, from the second layer on", Late, 7, THREE, attention=3, ends=(0, 1)),
    Unusual("tokens written into memory", Written, 7, THREE, attention=3, ends=(2, 0)),
    Unusual("registers that only attention sees", Apart, 7, THREE, attention=3, ends=(4, 0)),
    Unusual("tokens merged by queries", Merging, 3, "stem + 2, and 4 on queries", 4, "none of its axes", attention=1),
    Unusual("attention and MLP in one addition", lambda: Chain(Parallel), 4, "stem + 3", attention=3),
    Unusual("checkpointed blocks", lambda: Chain(Checkpointed), 7, THREE, attention=3),
    Unusual("a block through vmap", lambda: Chain(Mapped), 4, "stem + 3"),
    Unusual("attention along rows and columns", lambda: Chain(Rearranged), 10, "stem + 3 x 3", attention=6),
    Unusual("blocks by index, a list of maps", Pyramid, 6, "stem + 4 + 1; the pyramid's addition joins two scales"),
    Unusual("a U-Net by concatenation", UNet, 5, "stem + 2 convolutions + 2 poolings"),
    Unusual("a reversible network", lambda: Maps(Reversible), 7, "stem + 3 x 2: a half, then both"),
    Unusual("residual convolutions", lambda: Maps(Conv), 4, "stem + 3"),
    Unusual("a map made larger", Growing, 3, "stem + 2"),
    Unusual("no stream at all", Beside, 1, "1 + 3 x 2 layers side by side: nothing is added", 6, "side by side"),
]  # fmt: skip
