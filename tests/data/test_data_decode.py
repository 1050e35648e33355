"""Every kind of image file: the right pixels, or a reason. Faults 19."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from fourier_probe.data.decode import BadImageError, decode, to_8bit

GRADIENT = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40  # (H, W) = (2, 3), every value its own


def test_plain_grey_and_colour_come_back_as_they_were(tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    for name, pixels, mode in (("grey.png", GRADIENT, "L"), ("colour.png", colour, "RGB"), ("c.bmp", colour, "RGB")):
        Image.fromarray(pixels).save(tmp_path / name)
        image = decode(tmp_path / name)
        assert image.mode == mode
        np.testing.assert_array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled_and_rounded_to_nearest(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"deep.{suffix}")
    image = decode(tmp_path / f"deep.{suffix}")
    assert image.mode == "L"
    np.testing.assert_array_equal(np.asarray(image), np.rint(values / 257))  # 0 0 1 1 128 255


def test_16_bit_with_the_high_byte_first_and_a_transparent_value(tmp_path: Path) -> None:
    Image.frombytes("I;16B", (2, 1), struct.pack(">2H", 257, 65535)).save(tmp_path / "big.tif")
    np.testing.assert_array_equal(np.asarray(decode(tmp_path / "big.tif")), [[1, 255]])
    Image.fromarray(np.array([[0, 514]], dtype=np.uint16)).save(tmp_path / "clear.png", transparency=0)
    np.testing.assert_array_equal(np.asarray(decode(tmp_path / "clear.png")), [[255, 2]])


def test_older_pillow_calls_a_16_bit_png_a_32_bit_image() -> None:
    image = Image.fromarray(np.array([[0, 65535]], dtype=np.int32))
    image.format = "PNG"
    np.testing.assert_array_equal(np.asarray(to_8bit(image)), [[0, 255]])


def test_cmyk_is_multiplied_out(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "red.jpg", quality=100)
    Image.new("CMYK", (16, 16), (0, 0, 0, 255)).save(tmp_path / "black.tif")
    red = np.asarray(decode(tmp_path / "red.jpg")).astype(int)
    assert np.abs(red - [255, 0, 0]).max() <= 2
    assert np.asarray(decode(tmp_path / "black.tif")).max() == 0


def test_palettes_and_bitmaps(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8)).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / "solid.png")
    image.save(tmp_path / "clear.png", transparency=1)
    solid, clear = (np.asarray(decode(tmp_path / name))[0].tolist() for name in ("solid.png", "clear.png"))
    assert solid == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    assert clear == [[255, 0, 0], [255, 255, 255], [0, 0, 255]]
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "bits.png")
    bits = decode(tmp_path / "bits.png")
    assert (bits.mode, np.asarray(bits).tolist()) == ("L", [[255, 0]])


@pytest.mark.parametrize("alpha", [0, 51, 128, 255])
def test_transparency_is_composited_on_white(tmp_path: Path, alpha: int) -> None:
    Image.new("RGBA", (2, 2), (100, 0, 200, alpha)).save(tmp_path / "colour.png")
    Image.new("LA", (2, 2), (100, alpha)).save(tmp_path / "grey.png")
    share = alpha / 255
    colour, grey = decode(tmp_path / "colour.png"), decode(tmp_path / "grey.png")
    wanted = np.array([100, 0, 200]) * share + 255 * (1 - share)
    assert (colour.mode, grey.mode) == ("RGB", "L")
    assert np.abs(np.asarray(colour)[0, 0] - wanted).max() <= 0.51
    assert np.abs(np.asarray(grey)[0, 0] - wanted[0]) <= 0.51


def test_premultiplied_transparency() -> None:
    for mode, value in (("RGBa", (64, 64, 64, 128)), ("La", (64, 128))):
        pixel = np.asarray(to_8bit(Image.new(mode, (1, 1), value))).ravel()
        assert np.abs(pixel.astype(int) - (64 + 127)).max() <= 1


# What the EXIF standard's eight values do to a picture stored as `GRADIENT`, in numpy's words.
UPRIGHT = {
    1: GRADIENT,
    2: GRADIENT[:, ::-1],
    3: GRADIENT[::-1, ::-1],
    4: GRADIENT[::-1],
    5: GRADIENT.T,
    6: np.rot90(GRADIENT, -1),  # 90 degrees clockwise
    7: GRADIENT[::-1, ::-1].T,
    8: np.rot90(GRADIENT, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_orientation_is_applied_once(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(GRADIENT).save(tmp_path / f"turned.{suffix}", exif=exif, lossless=True)
    pixels = np.asarray(decode(tmp_path / f"turned.{suffix}").convert("L"))
    np.testing.assert_array_equal(pixels, UPRIGHT[orientation])


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_an_animation_gives_its_first_picture(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / f"moving.{suffix}", save_all=True, append_images=frames[1:], lossless=True)
    with Image.open(tmp_path / f"moving.{suffix}") as image:
        assert getattr(image, "n_frames", 1) == 2  # or the test shows nothing
    assert np.asarray(decode(tmp_path / f"moving.{suffix}"))[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "webp", "bmp", "tif"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_a_file_cut_short_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"cut.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(BadImageError, match=r"cannot use 1 image: .*cut\..*--skip-bad"):
        decode(path)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_damage_inside_a_png_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hit.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)).save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
    path.write_bytes(bytes(data))
    with pytest.raises(BadImageError, match=r"hit\.png"):
        decode(path)


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(BadImageError, match=r"text.png \(not a bitmap, GIF, JPEG, PNG, "):
        decode(tmp_path / "text.png")
    with pytest.raises(BadImageError, match=r"missing.png \(no such file or directory\)"):
        decode(tmp_path / "missing.png")


@pytest.mark.parametrize("side", [15, 20])  # above the limit, where Pillow warns, and above twice it, where it raises
def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int) -> None:
    Image.new("L", (side, side)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    with pytest.raises(BadImageError, match="over 200 pixels, a possible decompression bomb"):
        decode(tmp_path / "bomb.png")


@pytest.mark.parametrize(("kind", "word"), [(np.int32, "32-bit integers"), (np.float32, "floating-point")])
def test_numbers_without_a_range_are_refused(tmp_path: Path, kind: type, word: str) -> None:
    Image.fromarray(np.ones((2, 2), dtype=kind)).save(tmp_path / "numbers.tif")
    with pytest.raises(BadImageError, match=word):
        decode(tmp_path / "numbers.tif")


def test_the_message_names_the_first_few_and_survives_pickling() -> None:
    error = BadImageError([(f"{number}.png", "cut") for number in range(8)])
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert copy.bad == error.bad and str(copy) == str(error)
    assert "8 images: 0.png (cut), " in str(error) and "4.png (cut) and 3 more;" in str(error)
