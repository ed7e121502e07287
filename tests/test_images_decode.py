"""Every kind of photo file is decoded upright in 8-bit RGB, or refused with a reason that names the fault."""

from __future__ import annotations

import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from manyview.errors import InputError
from manyview.images import FitRules, load_views
from manyview.images import decode as decoding
from manyview.images.colour import image_from_array
from manyview.images.decode import Decoded, DecodeError, DecodeLimits, decode_image, decode_photo, picture_digest
from manyview.images.resize import network_frame, render, spare_resolution

LIMITS = DecodeLimits(178_956_970, partial(spare_resolution, rules=FitRules()))


def picture(height: int = 48, width: int = 64) -> np.ndarray:
    """Four flat quarters and a gradient: orientation shows, and lossy codecs stay close."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = (200, 40, 40)
    pixels[: height // 2, width // 2 :] = (40, 200, 40)
    pixels[height // 2 :, : width // 2] = (40, 40, 200)
    pixels[height // 2 :, width // 2 :] = (220, 220, 220)
    return pixels


def decoded_pixels(path: Path) -> np.ndarray:
    return np.asarray(decode_photo(path, LIMITS).image)


@pytest.mark.parametrize(
    ("suffix", "options", "tolerance"),
    [
        ("png", {}, 0),
        ("bmp", {}, 0),
        ("tif", {"compression": "tiff_lzw"}, 0),
        ("webp", {"lossless": True}, 0),
        ("gif", {}, 0),
        ("jpg", {"quality": 95}, 12),
        ("avif", {"quality": 95}, 12),
    ],
)
def test_photo_formats_are_decoded(tmp_path: Path, suffix: str, options: dict, tolerance: int) -> None:
    path = tmp_path / f"фото 写真.{suffix}"
    Image.fromarray(picture()).save(path, **options)
    decoded = decode_photo(path, LIMITS)
    assert decoded.image.mode == "RGB" and decoded.original_size == (48, 64)
    assert decoded.upright_in_file and decoded.changes == ()
    assert usual_difference(np.asarray(decoded.image), picture()) <= tolerance


def test_heic_is_decoded_without_registering_a_plug_in_for_all(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    path = tmp_path / "phone.heic"
    try:
        pillow_heif.from_pillow(Image.fromarray(picture())).save(path, quality=90)
    except Exception as error:  # libheif may be built without an encoder
        pytest.skip(f"cannot write HEIC here: {error}")
    assert usual_difference(decoded_pixels(path), picture()) <= 12
    with pytest.raises(Image.UnidentifiedImageError):
        Image.open(path)


@pytest.mark.parametrize("suffix", ["jpg", "tif", "png", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_exif_orientation_gives_the_same_upright_picture(tmp_path: Path, orientation: int, suffix: str) -> None:
    stored = {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.transpose(1, 0, 2),
        6: lambda p: np.rot90(p, 1),
        7: lambda p: np.rot90(p, 2).transpose(1, 0, 2),
        8: lambda p: np.rot90(p, -1),
    }[orientation](picture())
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{suffix}"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    decoded = decode_photo(path, LIMITS)
    assert decoded.original_size == (48, 64)
    assert decoded.upright_in_file == (orientation == 1)
    assert usual_difference(np.asarray(decoded.image), picture()) <= 6


def test_heic_that_is_turned_in_the_file_says_so(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.heic"
    try:
        heif = pillow_heif.from_pillow(Image.fromarray(np.ascontiguousarray(np.rot90(picture(), 1))))
        heif.save(path, quality=90, exif=exif.tobytes())
    except Exception as error:
        pytest.skip(f"cannot write HEIC here: {error}")
    decoded = decode_photo(path, LIMITS)
    assert decoded.original_size == (48, 64) and not decoded.upright_in_file
    assert usual_difference(np.asarray(decoded.image), picture()) <= 12


def test_sixteen_bit_grey_keeps_its_whole_range(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)
    for name in ("depth.png", "depth.tif"):
        Image.fromarray(values).save(tmp_path / name)
        decoded = decode_photo(tmp_path / name, LIMITS)
        grey = np.asarray(decoded.image)[..., 1].astype(int)
        assert np.abs(grey - values / 257).max() <= 0.51
        assert decoded.changes == ("16 bit reduced to 8",)


def test_sixteen_bit_colour_is_noted(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / "deep.png"
    path.write_bytes(cv2.imencode(".png", picture()[..., ::-1].astype(np.uint16) * 257)[1].tobytes())
    decoded = decode_photo(path, LIMITS)
    np.testing.assert_array_equal(np.asarray(decoded.image), picture())
    assert decoded.changes == ("16 bit reduced to 8",)


def test_floating_point_and_integer_pictures(tmp_path: Path) -> None:
    ramp = np.linspace(0, 1, 64 * 48, dtype=np.float32).reshape(48, 64)
    for scale, told in ((1, 0), (255, 0), (5000, 1)):
        Image.fromarray(ramp * scale).save(tmp_path / "float.tif")
        decoded = decode_photo(tmp_path / "float.tif", LIMITS)
        assert np.abs(np.asarray(decoded.image)[..., 0] - ramp * 255).max() <= 0.51
        assert len(decoded.changes) == told
    ramp[3, 3] = np.nan
    Image.fromarray(ramp).save(tmp_path / "float.tif")
    assert "1 pixels that are not finite" in decode_photo(tmp_path / "float.tif", LIMITS).changes[0]
    Image.fromarray((ramp[4:] * 1e6).astype(np.int32)).save(tmp_path / "int.tif")
    assert "stretched" in decode_photo(tmp_path / "int.tif", LIMITS).changes[0]


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "LA", "RGBA", "YCbCr", "PA"])
def test_every_pixel_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    converted = Image.fromarray(picture()).convert("P").convert("PA") if mode == "PA" else None
    converted = converted or Image.fromarray(picture()).convert(mode)
    expected = np.asarray(converted.convert("RGB"))
    suffix = "tif" if mode in ("CMYK", "YCbCr", "LA") else "png"
    if mode == "PA":
        decoded = decode_image(converted, LIMITS)
    else:
        converted.save(tmp_path / f"picture.{suffix}")
        decoded = decode_photo(tmp_path / f"picture.{suffix}", LIMITS)
    assert decoded.image.mode == "RGB"
    assert usual_difference(np.asarray(decoded.image), expected) <= 3
    assert bool(decoded.changes) == (mode == "CMYK")  # an opaque alpha channel is no change


def test_transparency_is_put_on_white(tmp_path: Path) -> None:
    rgba = np.dstack([picture(), np.full((48, 64), 255, np.uint8)])
    rgba[:24, :, 3] = 0
    rgba[24:, :32, 3] = 128
    Image.fromarray(rgba).save(tmp_path / "cutout.png")
    decoded = decode_photo(tmp_path / "cutout.png", LIMITS)
    pixels = np.asarray(decoded.image).astype(int)
    assert (pixels[:24] == 255).all()
    assert np.abs(pixels[30, 10] - [147, 147, 227]).max() <= 1
    np.testing.assert_array_equal(pixels[30, 40], picture()[30, 40])
    assert decoded.changes == ("transparency was put on white",)


def test_transparent_palette_is_put_on_white(tmp_path: Path) -> None:
    palette = Image.new("P", (32, 32), 0)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.paste(1, (0, 0, 16, 32))
    palette.save(tmp_path / "palette.png", transparency=0)
    pixels = decoded_pixels(tmp_path / "palette.png")
    assert (pixels[:, :16] == (255, 0, 0)).all() and (pixels[:, 16:] == 255).all()


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_the_first_of_several_pictures_is_taken_and_noted(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "lime", "blue")]
    lossless = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"moving.{suffix}", save_all=True, append_images=frames[1:], **lossless)
    decoded = decode_photo(tmp_path / f"moving.{suffix}", LIMITS)
    assert (np.asarray(decoded.image) == (255, 0, 0)).all()
    assert decoded.changes == ("first of 3 pictures in the file",)


def test_content_counts_and_not_the_name(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "really.png")
    wrong = (tmp_path / "really.png").rename(tmp_path / "wrong.jpg")
    np.testing.assert_array_equal(decoded_pixels(wrong), picture())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"hello, I am text", "not an image: it starts with b'hello"),
        (bytes(100), "not an image: it starts with zeros"),
        (b"\xff\xd8\xff\xe0rubbish", "corrupt or truncated: "),
        (b"\x89PNG\r\n\x1a\n" + b"x" * 100, "corrupt or truncated: "),
        (b"II*\x00" + b"\xff" * 60, "corrupt or truncated: "),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00heicmif1" + bytes(40), "corrupt or truncated: "),
        (b"RIFF\x00\x00\x00\x00WEBPrubbish", "corrupt or truncated: "),
        (b"\x00\x00\x00\x18ftypisom" + bytes(40), "a video among photos: "),
    ],
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_what_cannot_be_read_says_why(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "broken.jpg").write_bytes(content)
    with pytest.raises(DecodeError) as caught:
        decode_photo(tmp_path / "broken.jpg", LIMITS)
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "bmp", "gif", "heic"])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8))
    path = tmp_path / f"whole.{suffix}"
    if suffix == "heic":
        pillow_heif = pytest.importorskip("pillow_heif")
        pillow_heif.from_pillow(noise).save(path, quality=90)
    else:
        noise.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 6 // 10])
    with pytest.raises(DecodeError, match=r"corrupt or truncated: ."):
        decode_photo(path, LIMITS)


@pytest.mark.parametrize("seed", range(40))
def test_damaged_bytes_never_raise_anything_but_a_decode_error(tmp_path: Path, seed: int) -> None:
    generator = np.random.default_rng(seed)
    suffix = ("jpg", "png", "tif", "webp", "gif", "bmp")[seed % 6]
    path = tmp_path / f"damaged.{suffix}"
    Image.fromarray(picture()).save(path)
    content = bytearray(path.read_bytes())
    for position in generator.integers(4, len(content), 12):
        content[position] = generator.integers(256)
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            decoded = decode_photo(path, DecodeLimits(10_000_000, LIMITS.spare_resolution))
        except DecodeError as error:
            assert str(error)
        else:
            assert isinstance(decoded, Decoded) and decoded.image.mode == "RGB"


def test_too_many_pixels_are_refused_from_the_header_and_allowed_on_request(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (20_000, 10_000)).save(path)
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(DecodeError, match=r"too many pixels: 20000 x 10000 is 200 megapixels .* 179; .*max_pixels"):
        decode_photo(path, LIMITS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decoded = decode_photo(path, DecodeLimits(200_000_000, LIMITS.spare_resolution))
    assert decoded.original_size == (10_000, 20_000) and decoded.image.width < 5000
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_reduced_decoding_agrees_with_full_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, orientation: int
) -> None:
    """Odd sizes leave a partial block at the border, which must not shift the content."""
    height, width = 1203, 1605
    y, x = np.mgrid[:height, :width]
    waves = np.stack([x * (255 / width), y * (255 / height), 127.5 + 120 * np.sin(x / 40) * np.cos(y / 55)], axis=-1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"large.{suffix}"
    Image.fromarray(waves.astype(np.uint8)).save(path, exif=exif, **({"quality": 98} if suffix == "jpg" else {}))
    rules = FitRules(size=64, crop_to_landscape=True)
    limits = DecodeLimits(10**8, partial(spare_resolution, rules=rules))
    full = decode_photo(path, limits)
    monkeypatch.setattr(decoding, "EXACT_PIXELS", 10_000)
    reduced = decode_photo(path, limits)
    assert "save memory" in reduced.changes[-1]
    assert reduced.image.width < full.image.width / 3
    assert reduced.original_size == full.original_size
    frame = network_frame(full.original_size, rules)
    difference = render(frame, reduced.image).astype(int) - render(frame, full.image)
    assert np.abs(difference).max() <= 6 and np.abs(difference.mean(axis=(0, 1))).max() < 0.3


@pytest.mark.slow
def test_a_huge_photo_needs_bounded_memory(tmp_path: Path) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak memory of a process is read from /proc")
    Image.new("RGB", (13_000, 10_000), (90, 120, 30)).save(tmp_path / "huge.jpg", quality=50)
    program = (
        "import sys; from manyview.images import load_views; view = load_views(sys.argv[1])[0]; "
        "assert view.original_size == (10000, 13000); status = open('/proc/self/status').read(); "
        "print(status.split('VmHWM:')[1].split()[0])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "huge.jpg")], capture_output=True, text=True, check=True
    )
    assert int(ran.stdout) / 1024 < 200  # MiB; the decoded picture alone would be 520


def test_arrays_of_all_types_agree() -> None:
    pixels = picture()
    images = [
        image_from_array(pixels, "a")[0],
        image_from_array(pixels.astype(np.uint16) * 257, "a")[0],
        image_from_array(pixels / 255, "a")[0],
        image_from_array((pixels / 255).astype(np.float32), "a")[0],
        image_from_array(np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)]), "a")[0],
    ]
    for image in images:
        np.testing.assert_array_equal(np.asarray(image), pixels)
    grey = [image_from_array(pixels[..., 0], "a")[0], image_from_array(pixels[..., :1], "a")[0]]
    for image in grey:
        np.testing.assert_array_equal(np.asarray(image), np.repeat(pixels[..., :1], 3, axis=-1))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 20, 30), np.uint8), r"shape \(3, 20, 30\)[\s\S]*transpose\(1, 2, 0\)"),
        (np.zeros((20,), np.uint8), "shape"),
        (np.zeros((0, 5, 3), np.uint8), "shape"),
        (np.zeros((20, 30, 3), np.int64), "int64"),
        (np.full((20, 30, 3), 255.0), r"\[0, 1\], got 255 to 255"),
        (np.full((20, 30, 3), np.nan), "nan"),
    ],
)
def test_wrong_arrays_are_named(array: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_views([picture(), array])


def test_the_digest_depends_on_pixels_and_shape_alone(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.png")
    Image.fromarray(picture()).save(tmp_path / "b.bmp")
    image = Image.fromarray(picture())
    digests = {decode_photo(tmp_path / name, LIMITS).digest for name in ("a.png", "b.bmp")} | {picture_digest(image)}
    assert len(digests) == 1
    assert picture_digest(image.rotate(180)) not in digests
    flat = Image.new("RGB", (32, 64)), Image.new("RGB", (64, 32))
    assert picture_digest(flat[0]) != picture_digest(flat[1])


def usual_difference(ours: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference but for the few pixels at edges, where chroma subsampling blurs."""
    return float(np.percentile(np.abs(ours.astype(int) - expected).max(axis=-1), 85))
