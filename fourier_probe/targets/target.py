"""`Target`: a model with its provenance and its input, or a saved result. May import everything above `plots`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn

from fourier_probe.checkpoints.record import Input
from fourier_probe.data import InputSpec
from fourier_probe.data.trust import NamedData
from fourier_probe.errors import ModelError, printable
from fourier_probe.models import zoo
from fourier_probe.results.records import Provenance
from fourier_probe.results.spectra import Spectra
from fourier_probe.runtime import messages


@dataclass
class Target:
    """A model to be probed, or a result that was.

    Attributes:
        label: what tables and figures call it.
        provenance: the `target` field of spectra.json.
        model: in eval mode on the CPU; None for a saved result.
        data: the source it was trained on, where the file says; `data.trust` decides whether it is used.
        transform: what its run used, as far as the file says.
        spectra: the saved result, if it is one.
        name: of its file or folder, to tell targets of one label apart; the label where there is none.
    """

    label: str
    provenance: Provenance
    model: nn.Module | None = None
    data: NamedData | None = None
    transform: Input = field(default_factory=Input)
    spectra: Spectra | None = None
    name: str = ""

    def __post_init__(self) -> None:
        self.label = printable(self.label)
        self.name = self.name or self.label

    @property
    def input(self) -> InputSpec:
        """What the model wants to see: channels, size, mean, std."""
        return self.input_spec()

    def input_spec(
        self,
        *,
        img_size: tuple[int, int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        arrays: tuple[int, int] | None = None,
    ) -> InputSpec:
        """What the model wants to see: as given, else as its run had it, else as its architecture says.

        A network that says nothing of its size, as a factory's may, takes that of the arrays it is given; a note says
        so. A model with position embeddings of a fixed grid is resized by its own `set_input_size` where it has one.

        Args:
            img_size: (H, W) pixels.
            mean: one number, or one per channel, in [0, 1].
            std: likewise.
            arrays: (H, W) of the images, where they are arrays of one size (`ImageSet.array_size`).
        """
        if self.model is None:
            raise ModelError(f"{self.label} is a saved result: there is no model to give images to.")
        known = self.transform
        if img_size is None and known.size is None and not zoo.says_size(self.model):
            messages.note(_assumed(self.label, arrays))
            img_size = arrays
        spec = zoo.input_spec(
            self.model,
            img_size=img_size or known.size,
            mean=known.mean if mean is None else mean,
            std=known.std if std is None else std,
        )
        native = known.size or zoo.input_spec(self.model).size
        resize = getattr(self.model, "set_input_size", None)
        if img_size is not None and img_size != native and callable(resize):
            try:
                resize(img_size=img_size)
            except TypeError:
                pass  # some families have other arguments, and need none of this
            except (RuntimeError, AssertionError, ValueError) as error:
                raise ModelError(f"{self.label} cannot take images of {img_size[0]}x{img_size[1]}: {error}") from error
        patches = getattr(self.model, "patch_embed", None)
        made_for = getattr(patches, "img_size", None) if getattr(patches, "strict_img_size", False) else None
        if img_size is not None and made_for is not None and tuple(made_for) != img_size:
            sides = ",".join(map(str, img_size))
            raise ModelError(
                f"{self.label} takes images of {made_for[0]}x{made_for[1]} only. If it has no trained weights, make it "
                f"for another size with --model-arg img_size={sides}."
            )
        return spec


def _assumed(label: str, arrays: tuple[int, int] | None) -> str:
    height, width = arrays or (224, 224)
    whose = "that of the images is used" if arrays else f"{height}x{width} is assumed"
    return f"{label} does not say for which size of images it was made: {whose}. --img-size names another."
