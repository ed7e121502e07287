"""Videos are sampled by time, upright, one frame at a time, and partial use is reported."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from manyview.errors import InputError, NoValidImagesError
from manyview.images import View, load_views
from manyview.images.decode import DecodeError
from manyview.images.frames import WantedFrame, decode_frames, is_of_video
from manyview.images.video import VideoSampler, frames_at

av = pytest.importorskip("av")

WIDTH, HEIGHT = 96, 64


def write_video(
    path: Path, times: Sequence[float], *, rotation: int = 0, container_options: dict[str, str] | None = None
) -> Path:
    """Frame k is grey of level 10 + 2 k (seen at its middle), with a white patch in its top-left corner."""
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream("mpeg4", rate=1000)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = WIDTH, HEIGHT, "yuv420p", 4_000_000
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.gop_size = 5
        if rotation:
            if not hasattr(stream, "set_display_rotation"):
                pytest.skip("this PyAV cannot write the rotation flag")
            stream.set_display_rotation(rotation)
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(_pixels(number), format="rgb24")
            frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _pixels(number: int) -> np.ndarray:
    pixels = np.full((HEIGHT, WIDTH, 3), min(10 + 2 * number, 255), np.uint8)
    pixels[: HEIGHT // 4, : WIDTH // 4] = 255
    return pixels


def _level(pixels: np.ndarray) -> float:
    return float(np.median(pixels))


def test_one_frame_a_second_is_taken_by_default(tmp_path: Path) -> None:
    views = load_views(write_video(tmp_path / "clip.mp4", np.arange(0, 5, 0.1)), size=96)
    assert [view.name for view in views] == [f"clip#{index:06d}" for index in (0, 10, 20, 30, 40)]
    assert [view.timestamp for view in views] == pytest.approx([0, 1, 2, 3, 4], abs=1e-3)
    for view, index in zip(views, (0, 10, 20, 30, 40), strict=True):
        assert abs(_level(view.pixels) - (10 + 2 * index)) < 4
        assert view.source == str(tmp_path / "clip.mp4") and view.upright_in_file
    assert views.warnings == () and views.skipped == ()


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "mov"])
def test_frames_a_second_can_be_chosen_in_every_container(tmp_path: Path, suffix: str) -> None:
    step = 0.04
    views = load_views(write_video(tmp_path / f"clip.{suffix}", np.arange(0, 2, step)), size=96, fps=5)
    assert [view.timestamp for view in views] == pytest.approx(np.arange(10) / 5, abs=step + 1e-3)
    for view in views:
        assert view.timestamp is not None
        assert abs(_level(view.pixels) - (10 + 2 * view.timestamp / step)) < 5


def test_variable_frame_rate_is_sampled_by_time_and_not_by_number(tmp_path: Path) -> None:
    times = [*np.arange(0, 1, 0.02), *np.arange(1, 6, 0.5)]
    views = load_views(write_video(tmp_path / "vfr.mp4", times), size=96)
    assert [view.timestamp for view in views] == pytest.approx([0, 1, 2, 3, 4, 5], abs=2e-3)
    assert [int(view.name.split("#")[1]) for view in views] == [0, 50, 52, 54, 56, 58]


def test_a_gap_is_not_filled_with_repeated_frames(tmp_path: Path) -> None:
    views = load_views(write_video(tmp_path / "gap.mp4", [0, 0.5, 1, 1.5, 7.2, 7.6, 8.1]), size=96)
    assert [view.timestamp for view in views] == pytest.approx([0, 1, 7.2, 8.1], abs=2e-3)


def test_time_starts_at_the_first_frame(tmp_path: Path) -> None:
    views = load_views(write_video(tmp_path / "late.mkv", np.arange(3, 6, 0.1)), size=96)
    assert [view.timestamp for view in views] == pytest.approx([0, 1, 2], abs=2e-3)


def test_a_limit_spreads_frames_evenly_over_the_duration(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", np.arange(0, 9, 0.1))
    views = load_views(path, size=96, max_frames=3)
    assert [view.timestamp for view in views] == pytest.approx([0, 3, 6], abs=0.11)
    assert views.warnings == ()  # just what was asked for
    both = load_views(path, size=96, max_frames=3, fps=2)
    assert len(both) == 3 and "max_frames" in both.warnings[0]
    assert len(load_views(path, size=96, max_frames=100)) == 9


def test_a_limit_takes_the_first_frames_where_the_duration_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manyview.images.video._duration", lambda container: None)
    views = load_views(write_video(tmp_path / "clip.mp4", np.arange(0, 6, 0.1)), size=96, max_frames=3)
    assert [view.timestamp for view in views] == pytest.approx([0, 1, 2], abs=1e-3)
    assert "only the first 2.0 s were used" in views.warnings[0]


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_the_rotation_flag_is_applied(tmp_path: Path, rotation: int) -> None:
    """The flag counts counter-clockwise; the white patch of the stored top-left corner shows where it went."""
    path = write_video(tmp_path / "phone.mp4", np.arange(0, 1, 0.1), rotation=rotation)
    if rotation == -90:  # as phones write it: x' = -y, y' = x in the track header, which turns clockwise
        matrix = b"".join(value.to_bytes(4, "big", signed=True) for value in (0, 1 << 16, 0, -1 << 16, 0, 0))
        assert matrix in path.read_bytes()
    frame = next(iter(VideoSampler(path)))
    expected = np.rot90(_pixels(0), rotation // 90)
    assert not frame.upright_in_file
    assert np.asarray(frame.image).shape == expected.shape
    assert np.median(np.abs(np.asarray(frame.image).astype(int) - expected)) < 4
    patch = np.asarray(frame.image)[expected[..., 0] == 255]
    assert np.median(patch) > 240
    views = load_views(path, size=96)
    assert views[0].original_size == expected.shape[:2]


def test_a_cut_off_video_is_used_as_far_as_it_goes_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "cut.mp4"
    write_video(path, np.arange(0, 8, 0.05), container_options={"movflags": "faststart"})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    views = load_views(path, size=96)
    assert 1 < len(views) < 8
    assert any("could be decoded; the rest is missing or damaged" in warning for warning in views.warnings)


def test_damage_in_the_middle_is_reported_and_the_rest_is_used(tmp_path: Path) -> None:
    path = write_video(tmp_path / "damaged.mkv", np.arange(0, 6, 0.05))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + len(content) // 8] = np.random.default_rng(0).bytes(len(content) // 8)
    path.write_bytes(content)
    views = load_views(path, size=96)
    assert len(views) >= 2
    assert any("damaged" in warning for warning in views.warnings)


def test_a_video_whose_index_is_cut_off_is_an_error_that_says_so(tmp_path: Path) -> None:
    path = write_video(tmp_path / "cut.mp4", np.arange(0, 4, 0.05))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(NoValidImagesError, match=r"cut\.mp4 cannot be opened as a video[\s\S]*cut off"):
        load_views(path)


def test_files_that_are_no_videos_or_hold_no_frames_are_errors(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mkv").write_text("not a video")
    with av.open(str(tmp_path / "sound.mkv"), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.rate = 48000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    for name, message in (
        ("empty.mp4", "cannot be opened"),
        ("text.mkv", "cannot be opened"),
        ("sound.mkv", "no video"),
    ):
        with pytest.raises(NoValidImagesError, match=message):
            load_views(tmp_path / name)


def test_playlists_cannot_reach_other_files(tmp_path: Path) -> None:
    write_video(tmp_path / "secret.ts", np.arange(0, 1, 0.1))
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n"
    (tmp_path / "playlist.mp4").write_text(playlist)
    (tmp_path / "concat.mp4").write_text("ffconcat version 1.0\nfile secret.ts\n")
    for name in ("playlist.mp4", "concat.mp4"):
        with pytest.raises(NoValidImagesError, match="cannot be opened"):
            load_views(tmp_path / name)


def test_names_that_are_not_ascii_and_misleading_suffixes_are_no_obstacle(tmp_path: Path) -> None:
    path = write_video(tmp_path / "прогулка 散歩.mp4", np.arange(0, 2, 0.1))
    assert [view.name for view in load_views(path, size=96)] == ["прогулка 散歩#000000", "прогулка 散歩#000010"]
    renamed = path.rename(tmp_path / "photo.jpg")
    assert len(load_views([renamed], size=96)) == 2


def test_frames_are_decoded_one_at_a_time(tmp_path: Path) -> None:
    sampler = VideoSampler(write_video(tmp_path / "clip.mp4", np.arange(0, 5, 0.1)))
    frames = iter(sampler)
    assert next(frames).index == 0
    assert next(frames).index == 10
    frames.close()
    assert [frame.index for frame in sampler] == [0, 10, 20, 30, 40]


def test_progress_knows_the_total(tmp_path: Path) -> None:
    calls = []
    path = write_video(tmp_path / "clip.mp4", np.arange(0, 4, 0.1))
    load_views(path, size=96, progress=lambda *call: calls.append(call))
    assert calls == [(done, 4, "reading video") for done in (1, 2, 3, 4)]


@pytest.mark.parametrize("options", [{"fps": 0}, {"fps": -1.0}, {"fps": float("nan")}, {"max_frames": 0}])
def test_bad_options_are_named(tmp_path: Path, options: dict) -> None:
    path = write_video(tmp_path / "clip.mp4", [0, 0.1])
    with pytest.raises(InputError, match=next(iter(options))):
        load_views(path, **options)


def test_frames_with_too_many_pixels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NoValidImagesError, match="max_pixels"):
        load_views(write_video(tmp_path / "clip.mp4", [0, 0.1]), max_pixels=1000)


# ------------------------------------------------------------------ the same frames once more
@pytest.mark.parametrize(("suffix", "rotation"), [("mp4", 0), ("mp4", 90), ("mkv", 0), ("avi", 0)])
def test_frames_are_decoded_again_to_the_same_pixels(tmp_path: Path, suffix: str, rotation: int) -> None:
    path = write_video(tmp_path / f"clip.{suffix}", np.arange(0, 4, 0.07), rotation=rotation)
    first = {frame.timestamp: np.asarray(frame.image) for frame in VideoSampler(path, fps=3)}
    again = [(time, np.asarray(image)) for time, image in frames_at(path, [*reversed(first), *first])]
    assert [time for time, _ in again] == sorted(first) and len(first) == 12
    for time, pixels in again:
        np.testing.assert_array_equal(pixels, first[time])


def test_time_stamps_that_were_rounded_on_the_way_are_found(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mkv", np.arange(0, 2, 1 / 30))
    times = [round(frame.timestamp, 6) for frame in VideoSampler(path, fps=10)]
    assert [time for time, _ in frames_at(path, times)] == times


def test_frames_that_are_not_there_any_more_are_an_error_after_the_others(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", np.arange(0, 2, 0.1))
    frames = frames_at(path, [0.5, 0.55, 1.0, 7.0])
    assert next(frames)[0] == 0.5 and next(frames)[0] == 1.0
    with pytest.raises(DecodeError, match=r"clip\.mp4: 2 of 4 frames are not there any more.* 0\.550 s"):
        next(frames)


def test_no_more_is_decoded_than_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "clip.mp4", np.arange(0, 5, 0.1))
    turned: list[object] = []
    monkeypatch.setattr("manyview.images.video._upright", lambda frame: (turned.append(frame), True))
    frames = frames_at(path, [1.0, 2.0, 3.0])
    assert turned == []
    next(frames)
    assert len(turned) == 1  # only frames that were asked for become pictures, and one at a time
    frames.close()


def wanted(view: View, **changes) -> WantedFrame:
    assert view.source is not None and view.timestamp is not None
    known = {
        "video": view.source,
        "timestamp": view.timestamp,
        "original_size": view.original_size,
        "pixels": view.pixels,
        "original_from_pixels": view.original_from_network,
    }
    return WantedFrame(**(known | changes))


def test_frames_of_views_come_back_at_their_full_size(tmp_path: Path) -> None:
    paths = [
        write_video(tmp_path / name, np.arange(0, 4, 0.1), rotation=turn)
        for name, turn in (("a.mp4", 0), ("b.mp4", 90))
    ]
    views = [list(load_views(path, size=32, fit="pad")) for path in paths]
    assert views[0][0].size < (HEIGHT, WIDTH)
    mixed = [views[0][2], views[1][1], views[0][0], views[0][2]]
    found = dict(decode_frames([wanted(view) for view in mixed]))
    assert sorted(found) == [0, 1, 2, 3]
    for index, view in enumerate(mixed):
        image = found[index]
        assert not isinstance(image, str) and (image.height, image.width) == view.original_size
        assert abs(_level(np.asarray(image)) - _level(view.pixels)) < 2


def test_why_a_frame_cannot_be_had_is_said(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", np.arange(0, 6, 0.1))
    first, _, third = list(load_views(path, size=32, fps=0.5))
    found = dict(
        decode_frames(
            [
                wanted(first),
                wanted(first, original_size=(HEIGHT, WIDTH - 2)),
                wanted(third, timestamp=third.timestamp + 0.03),
                wanted(third, pixels=first.pixels),
                wanted(third, video=str(tmp_path / "gone.mp4")),
            ]
        )
    )
    assert not isinstance(found[0], str)
    reasons = [
        "changed its size",
        "not there any more",
        "shows something else at 4.000 s",
        "cannot be opened as a video",
    ]
    for index, reason in enumerate(reasons, start=1):
        words = found[index]
        assert isinstance(words, str) and reason in words


def test_a_picture_drawn_of_a_frame_is_a_photo(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", [0, 0.1])
    next(iter(VideoSampler(path))).image.save(tmp_path / "drawn.png")
    assert is_of_video(str(path), 0.0) and is_of_video(str(tmp_path / "gone.mp4"), 0.0)
    assert not is_of_video(str(tmp_path / "drawn.png"), 0.0)
    assert not is_of_video(str(path), None) and not is_of_video(None, 0.0)
