"""What photos tell by themselves: blur, exposure, repetition and EXIF, compared within a set."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter, uniform_filter1d
from scipy.special import erf

from manyview.errors import InputError, NoValidImagesError
from manyview.refine.photo_measures import SMOOTHING, exposure, fingerprint, reduced, sharpness
from manyview.refine.photo_reading import measure_photos
from manyview.refine.photo_report import PhotoLimits, PhotoReport, beside_others, photo_report
from manyview.worlds import render_worlds


@pytest.fixture(scope="module")
def views() -> list[np.ndarray]:
    """(240, 320, 3) uint8 each: five photos of a made-up world, sharp and well exposed."""
    images = render_worlds([7001], 5, (240, 320)).images[0]
    return [np.asarray((view.permute(1, 2, 0).clamp(0, 1) * 255).round().byte()) for view in images]


def report_of(photos: list[np.ndarray]) -> PhotoReport:
    return photo_report(measure_photos(photos), PhotoLimits(small=0))


def kinds(report: PhotoReport) -> list[list[str]]:
    return [[finding.kind for finding in photo.findings] for photo in report.photos]


def edge(spread: float, degrees: float) -> np.ndarray:
    """(120, 160, 3) uint8: one edge, blurred by a Gaussian of this standard deviation, at this angle."""
    y, x = np.mgrid[:120, :160]
    angle = np.radians(degrees)
    across = (x - 80) * np.cos(angle) + (y - 60) * np.sin(angle)
    return grey(128 + 100 * erf(across / spread / np.sqrt(2)))


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(np.clip(np.rint(values), 0, 255).astype(np.uint8)[..., None], 3, axis=2)


# ------------------------------------------------------------------ measures
@settings(max_examples=25, deadline=None)
@given(st.floats(0.8, 4.0), st.floats(0.0, 180.0))
def test_blur_is_the_width_of_an_edge_at_any_angle(spread: float, degrees: float) -> None:
    measured = sharpness(edge(spread, degrees)).blur / np.hypot(spread, SMOOTHING)
    assert 0.96 < measured < 1.5


def test_blur_depends_on_neither_contrast_nor_brightness_nor_size(views: list[np.ndarray]) -> None:
    usual = sharpness(views[0]).blur
    assert sharpness((views[0] * 0.4).astype(np.uint8)).blur == pytest.approx(usual, rel=0.1)
    doubled = np.tile(views[0], (2, 2, 1))
    assert sharpness(doubled).blur == pytest.approx(usual, rel=0.05)


def test_edges_all_around_are_measured_right() -> None:
    y, x = np.mgrid[:200, :200]
    disc = grey(128 + 100 * erf((60 - np.hypot(x - 100, y - 100)) / 2 / np.sqrt(2)))
    assert sharpness(disc).blur == pytest.approx(np.hypot(2, SMOOTHING), rel=0.05)
    assert sharpness(disc).streak < 0.1


def test_motion_leaves_streaks_and_defocus_does_not(views: list[np.ndarray]) -> None:
    usual = sharpness(views[0])
    moved = sharpness(uniform_filter1d(views[0], 9, axis=1))
    defocused = sharpness(gaussian_filter(views[0], (2, 2, 0)))
    assert moved.blur > 1.6 * usual.blur < defocused.blur
    assert moved.streak > usual.streak + PhotoLimits().streak > defocused.streak


def test_a_photo_of_stripes_is_not_taken_for_a_blurred_one() -> None:
    stripes = grey(np.broadcast_to(np.where(np.arange(200) // 10 % 2, 200, 50), (120, 200)))
    assert sharpness(stripes).blur < 1.0


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (2, 2), (3, 3)])
def test_tiny_and_plain_pictures_have_finite_measures(size: tuple[int, int]) -> None:
    pixels = np.full((*size, 3), 128, dtype=np.uint8)
    measured = sharpness(pixels)
    assert (measured.blur, measured.streak, measured.gradient) == (0.0, 0.0, 0.0)
    assert np.isfinite(exposure(pixels).brightness)
    assert fingerprint(pixels).shape == (255,)


def test_a_stop_is_a_doubling_of_light() -> None:
    values = np.full((4, 4, 3), 188, dtype=np.uint8)  # sRGB 188 is half of white's light, 137 a quarter
    darker = np.full((4, 4, 3), 137, dtype=np.uint8)
    assert exposure(values).brightness == pytest.approx(-1, abs=0.02)
    assert exposure(values).brightness - exposure(darker).brightness == pytest.approx(1, abs=0.02)


def test_clipping_is_counted_where_all_channels_are_lost() -> None:
    pixels = np.full((10, 10, 3), 100, dtype=np.uint8)
    pixels[:2] = 255
    pixels[2:5] = 0
    pixels[5] = (255, 255, 0)
    measured = exposure(pixels)
    assert measured.clipped_bright == pytest.approx(0.2)
    assert measured.clipped_dark == pytest.approx(0.3)


def test_photos_are_reduced_and_never_enlarged() -> None:
    assert reduced(Image.new("RGB", (400, 100)), 200).shape == (50, 200, 3)
    assert reduced(Image.new("RGB", (40, 10)), 200).shape == (10, 40, 3)


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=12), st.floats(-3, 3))
def test_scores_do_not_change_when_all_values_shift(values: list[float], shift: float) -> None:
    shifted = beside_others([value + shift for value in values], 0.1)
    assert shifted == pytest.approx(beside_others(values, 0.1), abs=1e-6)


# ------------------------------------------------------------------ findings
def test_good_photos_get_no_remark(views: list[np.ndarray]) -> None:
    assert kinds(report_of(views)) == [[]] * 5


@pytest.mark.parametrize("scene", ["fountain-p11", "box-rgbd", "motorcycle-stereo"])
def test_good_real_photos_get_no_remark(shared: Path, scene: str) -> None:
    photos = sorted((shared / "data" / scene / "images").iterdir())[:6]
    report = photo_report(measure_photos(photos))
    assert kinds(report) == [[]] * len(photos)


def test_a_defocused_photo_stands_out(views: list[np.ndarray]) -> None:
    changed = [*views[:2], gaussian_filter(views[2], (1.5, 1.5, 0)), *views[3:]]
    report = report_of(changed)
    assert kinds(report) == [[], [], ["blurred"], [], []]
    assert "take it again" in report.photos[2].findings[0].words
    assert "moved" not in report.photos[2].findings[0].words


def test_a_moved_photo_is_told_from_a_defocused_one(views: list[np.ndarray]) -> None:
    changed = [uniform_filter1d(views[0], 11, axis=1), *views[1:]]
    report = report_of(changed)
    assert kinds(report)[0] == ["blurred"]
    assert "the camera moved" in report.photos[0].findings[0].words


def test_blur_is_found_in_a_photo_that_is_alone(views: list[np.ndarray]) -> None:
    report = report_of([gaussian_filter(views[0], (3, 3, 0))])
    assert kinds(report) == [["blurred"]]
    assert report.findings[0].kind == "single_photo"


def test_a_set_that_is_blurred_as_a_whole_is_said_so(views: list[np.ndarray]) -> None:
    report = report_of([gaussian_filter(view, (3.5, 3.5, 0)) for view in views])
    assert "all_blurred" in [finding.kind for finding in report.findings]


@pytest.mark.parametrize(("gain", "kind"), [(0.2, "darker"), (5.0, "lighter")])
def test_another_exposure_stands_out(views: list[np.ndarray], gain: float, kind: str) -> None:
    linear = np.clip((views[1] / 255.0) ** 2.2 * gain, 0, 1)
    changed = [views[0], np.rint(255 * linear ** (1 / 2.2)).astype(np.uint8), *views[2:]]
    found = kinds(report_of(changed))
    assert kind in found[1]
    assert found[0] == found[2] == found[3] == found[4] == []


def test_lost_highlights_and_shadows_are_remarked_upon(views: list[np.ndarray]) -> None:
    white, black = views[0].copy(), views[0].copy()
    white[:100], black[:120] = 255, 0
    assert "overexposed" in kinds(report_of([white]))[0]
    assert "underexposed" in kinds(report_of([black]))[0]


def test_a_bare_wall_is_plain_and_not_blurred() -> None:
    wall = grey(gaussian_filter(np.random.default_rng(0).normal(128, 20, (200, 300)), 12))
    assert kinds(report_of([wall])) == [["plain"]]


def test_duplicates_are_found_by_pixels_and_by_looks(views: list[np.ndarray], tmp_path: Path) -> None:
    Image.fromarray(views[0]).save(tmp_path / "a.png")
    Image.fromarray(views[0]).save(tmp_path / "b.webp", lossless=True)
    Image.fromarray(views[0]).resize((160, 120)).save(tmp_path / "c.jpg", quality=60)
    Image.fromarray(views[1]).save(tmp_path / "d.png")
    report = photo_report(measure_photos(tmp_path))
    assert [photo.duplicate_of for photo in report.photos] == [None, "a.png", "a.png", None]
    found = [set(row) & {"duplicate", "near_duplicate"} for row in kinds(report)]
    assert found == [set(), {"duplicate"}, {"near_duplicate"}, set()]


def test_two_bare_walls_are_no_duplicates() -> None:
    walls = [grey(np.full((100, 100), value)) for value in (100, 101)]
    assert [photo.duplicate_of for photo in report_of(walls).photos] == [None, None]


# ------------------------------------------------------------------ sizes and EXIF
def with_exif(path: Path, pixels: np.ndarray, **tags: object) -> None:
    image = Image.fromarray(pixels)
    exif = image.getexif()
    numbers = {"focal": 0x920A, "film": 0xA405, "taken": 0x9003, "shutter": 0x829A}
    for name, value in tags.items():
        if name in numbers:
            exif.get_ifd(0x8769)[numbers[name]] = value
        else:
            exif[{"make": 0x010F, "model": 0x0110, "orientation": 0x0112}[name]] = value
    image.save(path, exif=exif, quality=97)


def test_exif_is_read_and_differences_are_remarked_upon(views: list[np.ndarray], tmp_path: Path) -> None:
    usual = {"make": "Canon", "model": "Canon R5", "focal": 24.0, "film": 24, "taken": "2024:05:31 13:45:00"}
    for index in range(3):
        with_exif(tmp_path / f"{index}.jpg", views[index], **usual)
    zoomed = {**usual, "focal": 50.0, "film": 50, "taken": "2024:05:31 17:45:00", "model": "Canon R6"}
    with_exif(tmp_path / "3.jpg", views[3], **zoomed)
    report = photo_report(measure_photos(tmp_path), PhotoLimits(small=0))
    assert (report.photos[0].focal_mm, report.photos[0].focal_35mm) == (24.0, 24.0)
    assert (report.photos[0].camera, report.photos[0].taken) == ("Canon R5", "2024-05-31T13:45:00")
    assert kinds(report) == [[], [], [], ["other_camera", "other_focal", "other_time"]]
    assert report.findings == ()


def test_a_clock_that_was_never_set_is_no_reason_to_fail(views: list[np.ndarray], tmp_path: Path) -> None:
    for index, taken in enumerate(("0001:01:01 00:00:00", "2024:05:31 13:45:00", "2024:05:31 13:50:00")):
        with_exif(tmp_path / f"{index}.jpg", views[index], taken=taken)
    report = photo_report(measure_photos(tmp_path), PhotoLimits(small=0))
    assert kinds(report) == [["other_time"], [], []]


def test_a_moved_photo_names_its_exposure_time(views: list[np.ndarray], tmp_path: Path) -> None:
    for index in range(4):
        pixels = uniform_filter1d(views[index], 11, axis=1) if index == 2 else views[index]
        with_exif(tmp_path / f"{index}.jpg", pixels, shutter=1 / 15)
    report = photo_report(measure_photos(tmp_path), PhotoLimits(small=0))
    assert "1/15 s" in report.photos[2].findings[0].words


def test_damaged_tags_are_missing_tags(views: list[np.ndarray], tmp_path: Path) -> None:
    with_exif(tmp_path / "a.jpg", views[0], focal=0.0, taken="yesterday", make="\x00")
    facts = photo_report(measure_photos(tmp_path)).photos[0]
    assert (facts.focal_mm, facts.taken, facts.camera) == (None, None, None)


def test_sizes_are_those_of_upright_photos(views: list[np.ndarray], tmp_path: Path) -> None:
    with_exif(tmp_path / "a.jpg", views[0], orientation=6)
    with_exif(tmp_path / "b.jpg", views[1])
    with_exif(tmp_path / "c.jpg", views[2])
    Image.fromarray(views[3]).crop((0, 0, 300, 200)).save(tmp_path / "d.jpg", quality=97)
    report = photo_report(measure_photos(tmp_path), PhotoLimits(small=0))
    assert [photo.size for photo in report.photos] == [(320, 240), (240, 320), (240, 320), (200, 300)]
    assert [photo.upright_in_file for photo in report.photos] == [False, True, True, True]
    assert kinds(report) == [[], [], [], ["other_size"]]


def test_previews_are_remarked_upon(views: list[np.ndarray]) -> None:
    assert kinds(photo_report(measure_photos(views)))[0] == ["small"]


# ------------------------------------------------------------------ bad input
def test_photos_that_cannot_be_read_are_named(views: list[np.ndarray], tmp_path: Path) -> None:
    Image.fromarray(views[0]).save(tmp_path / "good.png")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff" + bytes(40))
    report = photo_report(measure_photos(tmp_path))
    assert [photo.name for photo in report.photos] == ["good.png"]
    assert {item.name for item in report.skipped} == {"empty.jpg", "broken.jpg"}
    unreadable = [finding.words for finding in report.findings if finding.kind == "unreadable"]
    assert any("empty.jpg" in words for words in unreadable)


def test_no_photos_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NoValidImagesError):
        measure_photos(tmp_path)
    (tmp_path / "a.jpg").touch()
    with pytest.raises(NoValidImagesError) as error:
        measure_photos(tmp_path)
    assert "a.jpg" in str(error.value)
    with pytest.raises(InputError):
        measure_photos(tmp_path / "missing")


def test_progress_is_told_and_the_report_is_json(views: list[np.ndarray]) -> None:
    told: list[tuple[int, int | None, str]] = []
    measured = measure_photos(views[:2], progress=lambda *now: told.append(now))
    assert [now[:2] for now in told] == [(1, 2), (2, 2)]
    report = photo_report(measured)
    assert json.loads(json.dumps(asdict(report), allow_nan=False))["photos"][0]["name"] == report.photos[0].name
