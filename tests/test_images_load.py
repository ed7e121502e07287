"""`load_views`: what users pass, what they get, and what they are told."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from manyview.errors import InputError, NoValidImagesError
from manyview.images import Skipped, View, load_views, to_network_tensor


def noise(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write(folder: Path, name: str, seed: int = 0, height: int = 48, width: int = 64) -> Path:
    Image.fromarray(noise(seed, height, width)).save(folder / name)
    return folder / name


def names(views) -> list[str]:
    return [view.name for view in views]


def test_importing_is_light() -> None:
    program = (
        "import manyview.images, sys; print([m for m in ('torch', 'av', 'pillow_heif', 'cv2') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_a_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    for seed, name in enumerate(("img10.png", "img2.PNG", "IMG1.png", "é 写真.png", "img02.png")):
        write(tmp_path, name, seed)
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / "sub").mkdir()
    views = load_views(tmp_path)
    assert names(views) == ["IMG1.png", "img02.png", "img2.PNG", "img10.png", "é 写真.png"]
    assert views.warnings == () and views.skipped == ()
    assert names(load_views(str(tmp_path))) == names(load_views([tmp_path])) == names(views)


def test_other_files_in_a_folder_are_counted_in_a_warning(tmp_path: Path) -> None:
    write(tmp_path, "a.png")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "cameras.json").write_text("{}")
    (tmp_path / "walk.mp4").write_bytes(b"x")
    views = load_views(tmp_path)
    assert names(views) == ["a.png"]
    assert any("not used: 1" in warning and "walk.mp4" in warning for warning in views.warnings)
    assert any("ignored: 2" in warning and ".json, .txt" in warning for warning in views.warnings)


def test_a_list_keeps_its_order_and_may_mix_kinds(tmp_path: Path) -> None:
    path = write(tmp_path, "z.png", 1)
    views = load_views([str(path), noise(2), Image.fromarray(noise(3)), path.with_name("z.png")])
    assert names(views) == ["z.png", "array#1", "image#2", "z.png#2"] or len(set(names(views))) == 4
    assert [view.source for view in views] == [str(path), None, None, str(path)]
    assert len(set(names(views))) == 4


def test_the_source_is_found_from_any_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a.png")
    monkeypatch.chdir(tmp_path)
    (view,) = load_views("a.png")
    assert view.source == str(tmp_path / "a.png")


def test_equal_file_names_are_told_apart(tmp_path: Path) -> None:
    paths = []
    for seed, folder in enumerate(("left", "right")):
        (tmp_path / folder).mkdir()
        paths.append(write(tmp_path / folder, "0.png", seed))
    assert names(load_views(paths)) == ["left/0.png", "right/0.png"]
    assert names(load_views([tmp_path / "left", tmp_path / "right"])) == ["left/0.png", "right/0.png"]
    assert len(set(names(load_views([paths[0]] * 3)))) == 3


@pytest.mark.parametrize("wrap", [lambda a: a, Image.fromarray, lambda a: [a], lambda a: a[None]])
def test_one_picture_needs_no_list(wrap) -> None:
    views = load_views(wrap(noise(0)), size=64, square_ok=True)
    assert len(views) == 1 and isinstance(views[0], View)
    np.testing.assert_array_equal(views[0].pixels, noise(0))


def test_a_four_dimensional_array_is_a_list_of_pictures() -> None:
    assert names(load_views(np.stack([noise(0), noise(1)]))) == ["array#0", "array#1"]


def test_bad_files_are_skipped_with_their_reasons_and_the_rest_is_used(tmp_path: Path) -> None:
    whole = write(tmp_path, "good.png").read_bytes()
    (tmp_path / "zero.jpg").write_bytes(b"")
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("this is text")
    views = load_views(tmp_path)
    assert names(views) == ["good.png"]
    assert {item.name: item.reason.split(":")[0] for item in views.skipped} == {
        "zero.jpg": "empty file",
        "cut.png": "corrupt or truncated",
        "text.jpg": "not an image",
    }
    warning = next(warning for warning in views.warnings if "3 inputs were skipped" in warning)
    assert "1 empty file" in warning and "1 not an image" in warning


def test_strict_makes_a_bad_file_an_error_that_names_it(tmp_path: Path) -> None:
    write(tmp_path, "good.png")
    (tmp_path / "zero.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"zero\.jpg: empty file"):
        load_views(tmp_path, strict=True)
    assert not any("manyview-decode" in thread.name for thread in threading.enumerate())


def test_no_valid_picture_counts_the_reasons(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "c.jpg").write_text("text")
    with pytest.raises(NoValidImagesError, match="none of 3 inputs could be used: 2 empty file, 1 not an image"):
        load_views(tmp_path)


def test_missing_paths_and_empty_inputs_say_what_to_do(tmp_path: Path) -> None:
    there = write(tmp_path, "there.png")
    with pytest.raises(InputError, match=r"no such file or folder: .*typo\.png"):
        load_views([there, tmp_path / "typo.png"])
    with pytest.raises(InputError, match="no such file or folder"):
        load_views(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no pictures were given"):
        load_views([])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty"):
        load_views(tmp_path / "empty")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("x")
    with pytest.raises(InputError, match=r"no photos[\s\S]*\.jpg"):
        load_views(tmp_path / "texts")


def test_a_folder_of_videos_says_to_pass_the_video(tmp_path: Path) -> None:
    (tmp_path / "walk10.mp4").write_bytes(b"x")
    (tmp_path / "walk2.mov").write_bytes(b"x")
    with pytest.raises(NoValidImagesError, match=r"2 videos and no photos[\s\S]*walk2\.mov"):
        load_views(tmp_path)


@pytest.mark.parametrize("wrong", [3, [b"bytes"], {"a": 1}, [[noise(0)]], None])
def test_wrong_types_are_named(wrong) -> None:
    with pytest.raises(InputError, match="expected"):
        load_views(wrong)


def test_duplicates_are_kept_with_a_warning_and_dropped_on_request(tmp_path: Path) -> None:
    write(tmp_path, "a.png", 1)
    write(tmp_path, "b.bmp", 1)
    write(tmp_path, "c.png", 2)
    kept = load_views(tmp_path)
    assert names(kept) == ["a.png", "b.bmp", "c.png"] and kept[0].digest == kept[1].digest != kept[2].digest
    assert any("b.bmp = a.png" in warning for warning in kept.warnings)
    dropped = load_views(tmp_path, dedup=True)
    assert names(dropped) == ["a.png", "c.png"]
    assert dropped.skipped == (Skipped("b.bmp", "duplicate: same pixels as a.png"),)


def test_cutting_content_away_is_reported_and_padding_avoids_it() -> None:
    pictures = [noise(0, 64, 64), noise(1, 48, 64)]
    cropped = load_views(pictures)
    assert cropped[0].changes == ("25% of the height was cropped away",) and cropped[1].changes == ()
    assert any("1 of 2 pictures lost a part (of array#0, 25% of the height" in warning for warning in cropped.warnings)
    padded = load_views(pictures, fit="pad")
    assert padded[0].changes == () and padded.warnings == ()


def test_mixed_sizes_keep_their_own_way_back() -> None:
    views = load_views([noise(0, 90, 160), noise(1, 400, 300), noise(2, 30, 500)], fit="pad")
    assert [view.size for view in views] == [(288, 512), (512, 384), (32, 512)]
    assert [view.original_size for view in views] == [(90, 160), (400, 300), (30, 500)]
    for view in views:
        assert view.original_from_network.shape == (3, 3) and view.original_from_network.dtype == np.float64
        assert view.pixels.dtype == np.uint8 and view.valid.dtype == bool and view.valid.shape == view.size
    assert not views[2].valid.all()


def test_too_elongated_pictures_are_skipped_and_say_what_helps() -> None:
    views = load_views([noise(0), noise(1, 10, 1000)])
    assert names(views) == ["array#0"] and "pad" in views.skipped[0].reason


def test_max_pixels_limits_every_kind_of_input(tmp_path: Path) -> None:
    path = write(tmp_path, "large.png", 1, 100, 100)
    views = load_views([noise(0), path, Image.open(path), noise(2, 100, 100)], max_pixels=5000)
    assert len(views) == 1 and all(item.reason.startswith("too many pixels") for item in views.skipped)
    assert len(views.skipped) == 3
    with pytest.raises(InputError, match="max_pixels"):
        load_views(noise(0), max_pixels=0)


def test_a_picture_of_the_caller_is_left_alone_and_its_orientation_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(0)).save(tmp_path / "turned.png", exif=exif)
    image = Image.open(tmp_path / "turned.png")
    views = load_views([image, image, image], size=64)
    assert image.size == (64, 48) and image.getexif()[0x0112] == 6
    assert all(view.original_size == (64, 48) and not view.upright_in_file for view in views)
    np.testing.assert_array_equal(views[2].pixels, np.rot90(noise(0), -1))


def test_order_is_kept_and_progress_is_told(tmp_path: Path) -> None:
    for seed in range(12):
        side = 400 if seed % 2 == 0 else 40  # large ones take longer than those after them
        write(tmp_path, f"{seed}.png", seed, side, side)
    calls = []
    views = load_views(tmp_path, size=64, progress=lambda *call: calls.append(call))
    assert names(views) == [f"{seed}.png" for seed in range(12)]
    assert calls == [(done + 1, 12, "reading photos") for done in range(12)]


def test_results_do_not_depend_on_the_run(tmp_path: Path) -> None:
    for seed in range(4):
        write(tmp_path, f"{seed}.jpg", seed)
    first, second = load_views(tmp_path), load_views(tmp_path)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
        assert one.digest == other.digest


def test_video_options_for_photos_are_reported() -> None:
    assert any("concern videos" in warning for warning in load_views(noise(0), fps=2).warnings)


def test_tensors_run_from_minus_one_to_one() -> None:
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:, 32:] = (255, 128, 0)
    views = load_views([picture, noise(1, 64, 48)], size=64)
    tensors = to_network_tensor(views)
    assert [tuple(tensor.shape) for tensor in tensors] == [(1, 3, 48, 64), (1, 3, 64, 48)]
    assert tensors[0][0, :, 24, 10].tolist() == [-1, -1, -1]
    assert tensors[0][0, :, 24, 60].tolist() == pytest.approx([1, 128 / 127.5 - 1, -1], abs=1e-6)
    assert to_network_tensor(views[1])[0].equal(tensors[1])
    assert (views[0].pixels == np.asarray(picture)).all()  # making tensors changes nothing
