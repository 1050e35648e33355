"""What a result that nobody labelled is called."""

from __future__ import annotations

from fourier_probe.plots.style import LONGEST, short_title
from fourier_probe.results.labels import name_of
from fourier_probe.results.records import Provenance


def test_what_only_fits_a_model_to_its_images_is_no_part_of_its_label() -> None:
    arguments = {"img_size": 224, "dynamic_img_size": True, "strict_img_size": False, "num_classes": 0}
    assert name_of(Provenance(source="vit.pt", arch="vit_small_patch14_dinov2", model_args=arguments)) == (
        "vit_small_patch14_dinov2"
    )
    own = Provenance(source="a.pt", arch="eit_small_w80", model_args={**arguments, "split": "attention"})
    assert name_of(own) == "eit_small_w80 split=attention"


def test_a_title_is_shortened_between_words() -> None:
    long = "vit_small_patch14 embed_dim=80 depth=12 mlp_ratio=2, seed 1"
    assert short_title(long) == "vit_small_patch14 ... seed 1" and len(short_title(long)) <= LONGEST
    for title in ("x" * 80, "x" * 40 + " y", "y " + "x" * 40, "a b " * 20):
        assert len(short_title(title)) <= LONGEST
