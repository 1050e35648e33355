"""A recast network leaves torch: exported to ONNX and run by another engine, it gives the same numbers."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import fourier_probe as fp

runtime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.mark.slow
def test_a_recast_network_is_exported(tmp_path: Path) -> None:
    """GPSA on a large and a small grid, and the two cheaper architectures of its content half."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        *(torch.nn.Conv2d(a, b, 3, padding=1, stride=s) for a, b, s in ((3, 4, 1), (4, 8, 2), (8, 8, 1), (8, 8, 1)))
    ).eval()
    for name, options in {"0": {}, "1": {}, "2": {"content_stride": 2}, "3": {"content_maps": 1}}.items():
        fp.recast_(model, [name], locality_strength=1.0, gate=0.5, **options)
    images = torch.randn(2, 3, 14, 10)  # the last two see 7 x 5: an odd grid
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, which changes with every version
        torch.onnx.export(model, (images,), tmp_path / "net.onnx", dynamo=True, verbose=False)
    session = runtime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    (out,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    with torch.no_grad():
        expected = model(images).numpy()
    np.testing.assert_allclose(out, expected, atol=1e-5 * np.abs(expected).max())
