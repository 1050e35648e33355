"""A residual step is taken out by a hook: against the same network with that branch written out of its forward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import fourier_probe as fp
from fourier_probe.probe.lesions import removable_steps, without
from fourier_probe.runtime.messages import listening


def vit() -> nn.Module:
    torch.manual_seed(0)
    return fp.create("cifar_vit_patch4", num_classes=10, in_chans=1).eval()


def test_without_a_step_is_the_forward_without_its_branch() -> None:
    net, images = vit(), torch.rand(3, 1, 32, 32)
    steps, left = removable_steps(net, images)
    assert not left and len(steps) == 2 * len(net.blocks)  # type: ignore[arg-type]
    assert [step.op for step in steps[:2]] == ["attention", "mlp"]

    class Nothing(nn.Module):
        def forward(self, x: Tensor, *_: object, **__: object) -> Tensor:
            """Zeros."""
            return torch.zeros_like(x)

    for step in (steps[0], steps[3], steps[-1]):
        with torch.no_grad(), without(net, step):
            found = net(images)
        block = net.blocks[steps.index(step) // 2]  # type: ignore[index]
        name = "attn" if step.op == "attention" else "mlp"
        kept = getattr(block, name)
        setattr(block, name, Nothing())
        with torch.no_grad():
            expected = net(images)
        setattr(block, name, kept)
        assert torch.equal(found, expected)
    with torch.no_grad():
        assert not torch.equal(net(images), expected)  # the hooks are gone
    assert not any(module._forward_hooks for module in net.modules())


def test_a_step_with_a_projection_or_without_a_shortcut_is_said() -> None:
    torch.manual_seed(0)
    net = fp.create("cifar_resnet8", num_classes=10, in_chans=1, width=4).eval()
    steps, left = removable_steps(net, torch.rand(1, 1, 32, 32))
    assert {step.name for step in steps} | set(left) == {"layer1.0", "layer2.0", "layer3.0"}
    plain = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
    steps, left = removable_steps(plain, torch.rand(1, 1, 8, 8))
    assert steps == [] and all("no shortcut" in reason for reason in left.values())


@pytest.mark.slow
def test_validate_gives_the_profile_with_paired_intervals() -> None:
    net = vit()
    images, labels = torch.rand(40, 1, 32, 32, generator=torch.Generator().manual_seed(1)), torch.arange(40) % 10
    batches = [(images[:25], labels[:25]), (images[25:], labels[25:])]
    result = fp.validate(net, batches, lesions=True)
    assert result.lesions is not None and len(result.lesions) == 12 and not result.kept
    steps, _ = removable_steps(net, images)
    row = result.lesions[2]
    with torch.no_grad():
        whole = net(images)
        with without(net, steps[2]):
            scores = net(images)
    assert row.name == steps[2].name and row.top1.value == pytest.approx(
        float((scores.argmax(1) == labels).double().mean())
    )
    change = nn.functional.cross_entropy(scores, labels) - nn.functional.cross_entropy(whole, labels)
    assert row.loss_change is not None and row.loss_change.value == pytest.approx(float(change), abs=1e-5)
    assert row.top1_change.value == pytest.approx(row.top1.value - result.top1.value)
    figure = result.plot("lesions")
    assert figure.axes[0].get_ylabel().startswith("Top-1")


def test_a_network_without_shortcuts_has_a_note_and_no_profile() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.Flatten(), nn.Linear(256, 2)
    )
    notes: list[str] = []
    with listening(notes.append):
        result = fp.validate(net, [(torch.rand(20, 1, 8, 8), torch.arange(20) % 2)], lesions=True)
    assert result.lesions == [] and result.kept and any("no residual step" in text for text in notes)
