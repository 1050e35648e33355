"""docs/architecture.md, from an image to a figure: one analysis meets each room once, in the order that is written."""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path
from types import FrameType

import pytest
import torch

import fourier_probe as fp
import fourier_probe.plots.spectra

PAGE = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text()
PACKAGE = Path(fp.__file__).parent
HELPERS = {"io", "runtime", "errors", "registry", "plugins", "__init__"}  # of use everywhere


def _rooms_of_an_analysis(folder: Path) -> list[str]:
    met: dict[str, None] = {}

    def note(frame: FrameType, event: str, _argument: object) -> None:
        file, name = Path(frame.f_code.co_filename), frame.f_code.co_name
        if event == "call" and PACKAGE in file.parents and not name.startswith(("__", "<")):
            met.setdefault(file.relative_to(PACKAGE).parts[0].removesuffix(".py"))

    arguments = {"num_classes": 10, "in_chans": 1}
    fp.analyze("timm:cifar_resnet8", "bundled", images=2, model_args=arguments)  # imports on the way are no calls
    sys.setprofile(note)
    try:
        fp.analyze("timm:cifar_resnet8", "bundled", images=20, out=folder, model_args=arguments)
    finally:
        sys.setprofile(None)
    return [room for room in met if room not in HELPERS]


@pytest.mark.slow
def test_an_image_meets_the_rooms_in_the_order_of_the_page(tmp_path: Path) -> None:
    torch.manual_seed(0)
    walk = PAGE[PAGE.index("## From an image to a figure") : PAGE.index("## Decisions")]
    steps = re.findall(r"^\d+\. \*\*`(\w+)`\*\*", walk, re.M)
    assert len(steps) >= 7
    assert _rooms_of_an_analysis(tmp_path / "out") == steps


def test_the_page_names_every_room_in_the_order_that_the_linter_checks() -> None:
    rows = re.findall(r"^\| (`.+?`) \|", PAGE, re.M)
    named = [name for row in rows for name in re.findall(r"`(\w+)/?`", row)]
    config = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    layers = re.findall(r'"fourier_probe\.(\w+)"', config[config.index("layers = [") : config.index("ignore_imports")])
    assert named == layers[::-1]
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    modules = {path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("__")}
    assert set(named) == rooms | modules


def test_modules_that_the_page_names_are_there() -> None:
    walk = PAGE[PAGE.index("## From an image to a figure") : PAGE.index("## Decisions")]
    for name in set(re.findall(r"`(?!fp\.)(\w+(?:\.\w+)+)`", walk)):
        path = PACKAGE.joinpath(*name.split("."))
        assert path.is_dir() or path.with_suffix(".py").exists() or path.parent.with_suffix(".py").exists(), name


def test_a_warning_of_this_package_is_an_error_and_one_of_another_is_not() -> None:
    def warn(module: str) -> None:
        warnings.warn_explicit("old", DeprecationWarning, f"{module}.py", 1, module=module)

    for module in ("fourier_probe.plots.style", "test_architecture"):
        with pytest.raises(DeprecationWarning):
            warn(module)
    with warnings.catch_warnings(record=True):
        warn("torch.nn.modules.conv")
