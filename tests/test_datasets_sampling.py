"""What is peculiar to each data set: which views make a sample, what is passed over, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from manyview.datasets import Augmentation, open_dataset
from manyview.datasets.blendedmvs import read_camera, read_pairs
from manyview.datasets.depth_files import read_pfm
from manyview.errors import InputError
from manyview.geometry.posed_views import PosedViews
from test_datasets import (
    CENTRAL,
    PLAIN,
    STORED,
    WRITERS,
    assert_equal,
    save_picture,
    shoot,
    shots,
    write_arkitscenes,
    write_blendedmvs,
    write_co3d,
    write_habitat,
    write_megadepth,
    write_scannetpp,
    write_worlds_folder,
)

SMALL = (18, 24)
SCENE = "5a3ca9cb270f0e3f14d0eddb"


def places(views: PosedViews) -> list[int]:
    """Which of `shots()` each view is."""
    poses = np.stack([shot.camera.world_from_camera for shot in shots()])
    return [int(np.abs(poses - pose.numpy()).max(axis=(1, 2)).argmin()) for pose in views.world_from_camera[0]]


def drawn(kind: str, root: Path, views: int, count: int = 20) -> list[list[int]]:
    dataset = open_dataset(kind, root, augmentation=PLAIN)
    return [places(dataset.sample(0, views, SMALL, seed)) for seed in range(count)]


def test_co3d_removes_depth_off_the_object_and_leaves_the_picture(tmp_path):
    write_co3d(tmp_path, shots())
    whole = open_dataset("co3d", tmp_path, augmentation=PLAIN).sample(0, 2, STORED, seed=0)
    mask = np.full(STORED, 255, dtype=np.uint8)
    mask[20:40], mask[40:60] = 20, 30  # 20 / 255 < 0.1 < 30 / 255
    for path in tmp_path.glob("apple/*/masks/*.png"):
        save_picture(path, mask)
    views = open_dataset("co3d", tmp_path, augmentation=PLAIN).sample(0, 2, STORED, seed=0)
    assert torch.equal(views.images, whole.images)
    assert not views.valid[0, :, 20:40].any() and views.valid[0, :, 40:].all()


@pytest.mark.parametrize("maximum", [np.nan, np.inf])
def test_co3d_frames_without_depth_are_replaced_by_repeats(tmp_path, maximum):
    write_co3d(tmp_path, shots())
    for number in range(1, 30, 3):  # all but the last two frames
        path = tmp_path / "apple/110_1_1/images" / f"frame{number:06d}.npz"
        np.savez(path, **{**np.load(path), "maximum_depth": maximum})
    for chosen in drawn("co3d", tmp_path, 12):
        assert len(chosen) == 12 and set(chosen) <= {10, 11}


def test_co3d_sequences_without_depth_are_passed_over_up_to_a_limit(tmp_path):
    blank = shoot(3.0)
    blank.depth[0, -1] = 1e-9  # so that it has a largest depth, of which nothing is left
    blank.depth[blank.depth != 1e-9] = 0
    write_co3d(tmp_path, [blank] * 3, "100_0_0")
    with pytest.raises(InputError, match="apple/100_0_0: no frame with depth"):
        mask_all(tmp_path)
        open_dataset("co3d", tmp_path).sample(0, 2, SMALL, seed=0)
    write_co3d(tmp_path, shots(), "200_0_0")
    dataset = open_dataset("co3d", tmp_path, augmentation=PLAIN)
    assert [dataset.name(index) for index in range(len(dataset))] == ["apple/100_0_0", "apple/200_0_0"]
    assert dataset.sample(0, 2, SMALL, seed=0).valid.any()


def mask_all(root: Path) -> None:
    for path in root.glob("apple/*/masks/*.png"):
        save_picture(path, np.zeros(STORED, dtype=np.uint8))


def test_co3d_views_run_back_in_time(tmp_path):
    write_co3d(tmp_path, shots())
    steps = [chosen[0] - chosen[-1] for chosen in drawn("co3d", tmp_path, 4)]
    assert np.mean(steps) > 2  # jitter may turn single ones


def test_co3d_test_sequences_are_listed_apart(tmp_path):
    write_co3d(tmp_path, shots(), "110_1_1")
    write_co3d(tmp_path, shots(), "990_9_9", split="test")
    assert open_dataset("co3d", tmp_path).name(0) == "apple/110_1_1"
    assert open_dataset("co3d", tmp_path, split="test").name(0) == "apple/990_9_9"


@pytest.mark.parametrize(("kind", "spread"), [("megadepth", 3 + 4), ("arkitscenes", 9), ("worlds-folder", 9)])
def test_views_lie_in_a_window_in_time(tmp_path, kind, spread):
    """Two views: windows of 4 frames with jitters of 2 to both sides, or of 10 frames."""
    WRITERS[kind](tmp_path, shots())
    spreads = [max(chosen) - min(chosen) for chosen in drawn(kind, tmp_path, 2, count=40)]
    assert spread >= max(spreads) >= spread - 3


def test_scannetpp_never_mixes_devices(tmp_path):
    write_scannetpp(tmp_path, shots())
    dataset = open_dataset("scannetpp", tmp_path, augmentation=PLAIN)
    assert [dataset.name(index) for index in range(2)] == ["1ada7a0617/dslr", "1ada7a0617/iphone"]
    for index, odd in ((0, 1), (1, 0)):
        chosen = {place for seed in range(10) for place in places(dataset.sample(index, 4, SMALL, seed))}
        assert len(chosen) > 3 and all(place % 2 == odd for place in chosen)
    assert dataset.weights.tolist() == [6, 6]


def test_arkitscenes_intrinsics_may_be_rows_of_six_and_test_scenes_lie_apart(tmp_path):
    write_arkitscenes(tmp_path, shots())
    write_arkitscenes(tmp_path, shots(), "Test")
    path = tmp_path / "Test" / "all_metadata.npz"
    table = dict(np.load(path))
    K = table["intrinsics"]
    rows = [np.full(len(K), 96), np.full(len(K), 72), K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2]]
    np.savez(path, **{**table, "intrinsics": np.stack(rows, axis=1)})
    train, test = (
        open_dataset("arkitscenes", tmp_path, split=split).sample(0, 3, SMALL, 0) for split in ("train", "test")
    )
    assert_equal(train, test)


def test_habitat_begins_with_the_anchor_and_repeats_the_others_only(tmp_path):
    write_habitat(tmp_path, shots())
    assert len(open_dataset("habitat", tmp_path)) == 2
    for chosen in drawn("habitat", tmp_path, 5):
        assert chosen[0] == 0 and sorted(chosen) == [0, 1, 2, 3, 4]
    for chosen in drawn("habitat", tmp_path, 9):
        assert chosen[0] == 0 and chosen.count(0) == 1


def test_habitat_takes_the_next_view_for_a_broken_one(tmp_path):
    write_habitat(tmp_path, shots())
    cameras = sorted(tmp_path.glob("**/00000000_*_camera_params.json"))
    for path in cameras[:2]:
        path.write_text(json.dumps({**json.loads(path.read_text()), "t_cam2world": [float("nan")] * 3}))
    for chosen in drawn("habitat", tmp_path, 5):
        assert chosen[0] == 2 and sorted(chosen[1:]) == [2, 2, 3, 4]


def test_habitat_reads_the_shortest_list_of_the_split(tmp_path):
    write_habitat(tmp_path, shots())
    (tmp_path / "Habitat_10000_scenes_train.txt").write_text("other/0\n" * 9)
    (tmp_path / "Habitat_100_scenes_val.txt").write_text("hm3d/00006-a/00000005\n")
    assert len(open_dataset("habitat", tmp_path)) == 2
    assert open_dataset("habitat", tmp_path, split="test").name(0) == "hm3d/00006-a/00000005"


def test_blendedmvs_walks_through_pairs_from_either_end(tmp_path):
    write_blendedmvs(tmp_path, shots())
    for walk in drawn("blendedmvs", tmp_path, 3):  # each view has pairs with the one before and the two behind it
        assert len(set(walk)) == 3 and max(walk) - min(walk) <= 4
    one_way = "".join(f"{view}\n1 {(view + 1) % 12} 9.5\n" for view in range(12))
    (tmp_path / SCENE / "cams" / "pair.txt").write_text(f"12\n{one_way}")
    steps = {(walk[1] - walk[0]) % 12 for walk in drawn("blendedmvs", tmp_path, 3)}
    assert steps == {1, 11}


def test_blendedmvs_colours_are_left_alone(tmp_path):
    write_blendedmvs(tmp_path, shots())
    samples = [
        open_dataset("blendedmvs", tmp_path, augmentation=Augmentation(crop_jitter=False, colour_jitter=jitter))
        for jitter in (True, False)
    ]
    assert_equal(*(dataset.sample(0, 3, SMALL, seed=0) for dataset in samples))


def test_blendedmvs_rejects_walks_with_empty_files_or_without_finite_cameras(tmp_path):
    write_blendedmvs(tmp_path, shots())
    (tmp_path / SCENE / "rendered_depth_maps" / "00000003.pfm").write_bytes(b"")
    (tmp_path / SCENE / "blended_images" / "00000005.jpg").write_bytes(b"")
    camera = tmp_path / SCENE / "cams" / "00000007_cam.txt"
    camera.write_text(
        " ".join(["nan" if place == 4 else word for place, word in enumerate(camera.read_text().split())])
    )
    dataset, seen = open_dataset("blendedmvs", tmp_path, augmentation=PLAIN), set()
    for seed in range(30):
        try:
            seen |= set(places(dataset.sample(0, 2, SMALL, seed)))
        except InputError as error:
            assert "walks were rejected" in str(error)
    assert len(seen) > 5 and not seen & {3, 5, 7}


@pytest.mark.parametrize(
    ("factor", "principal_point", "reason"),
    [(1000, CENTRAL, "largest depths range"), (1, (10.0, 35.0), "principal point is near the border")],
)
def test_blendedmvs_rejects_unequal_depths_and_lopsided_cameras(tmp_path, factor, principal_point, reason):
    write_blendedmvs(tmp_path, [shoot(0.1 * index, principal_point=principal_point) for index in range(2)])
    path = tmp_path / SCENE / "rendered_depth_maps" / "00000001.pfm"
    values = (read_pfm(path)[::-1] * np.float32(factor)).astype("<f4")
    path.write_bytes(f"Pf\n{STORED[1]} {STORED[0]}\n-1.0\n".encode() + values.tobytes())
    with pytest.raises(InputError, match=f"5 walks were rejected, the last since .*{reason}"):
        open_dataset("blendedmvs", tmp_path).sample(0, 2, SMALL, seed=0)


def test_blendedmvs_without_a_list_is_all_scenes_for_training(tmp_path):
    write_blendedmvs(tmp_path, shots())
    (tmp_path / "train_list.txt").unlink()
    assert open_dataset("blendedmvs", tmp_path).name(0) == SCENE
    with pytest.raises(InputError, match=r"test_list\.txt is missing"):
        open_dataset("blendedmvs", tmp_path, split="test")


@pytest.mark.parametrize("ending", ["0.5 0.01", "-1 0.01 128", "0.5\n\n0.01 128 9.0\n"])
def test_mvsnet_cameras_are_read_by_words(tmp_path, ending):
    path = tmp_path / "cam.txt"
    path.write_text(f"extrinsic\n1 0 0 1\n0 1 0 2 0 0 1 3\n0 0 0 1\n\nintrinsic 9 0 5\n0 8 4\n0 0 1\n{ending}")
    K, world_from_camera = read_camera(path)
    assert K.tolist() == [[9, 0, 5], [0, 8, 4], [0, 0, 1]] and world_from_camera[:3, 3].tolist() == [-1, -2, -3]


def test_pair_lists_may_be_of_any_length(tmp_path):
    (tmp_path / "pair.txt").write_text("3\n0\n2 1 9.5 2 3.5\n1\n1 0 9.5\n2\n0\n")
    assert read_pairs(tmp_path / "pair.txt") == {0: [1, 2], 1: [0], 2: []}


def test_megadepth_holds_scenes_out_and_reads_either_table(tmp_path):
    write_megadepth(tmp_path, shots())
    by_pairs = open_dataset("megadepth", tmp_path)
    assert [by_pairs.name(index) for index in range(len(by_pairs))] == ["0001/0"]
    assert open_dataset("megadepth", tmp_path, split="test").name(0) == "0015/0"
    names = np.load(tmp_path / "all_metadata.npz")["images"]
    np.savez(
        tmp_path / "all_metadata_for_multiview.npz",
        scenes=np.array(["0001/0"]),
        sceneids=np.zeros(len(names), dtype=np.int64),
        images=names,
    )
    (tmp_path / "all_metadata.npz").unlink()
    assert_equal(by_pairs.sample(0, 4, SMALL, 3), open_dataset("megadepth", tmp_path).sample(0, 4, SMALL, 3))


def test_pickled_tables_are_refused(tmp_path):
    write_megadepth(tmp_path, shots())
    table = dict(np.load(tmp_path / "all_metadata.npz"))
    np.savez(tmp_path / "all_metadata.npz", **{**table, "images": table["images"].astype(object)})
    with pytest.raises(InputError, match=r"all_metadata\.npz.*allow_pickle") as caught:
        open_dataset("megadepth", tmp_path)
    assert "text" in caught.value.hint


def test_a_worlds_folder_is_one_scene_or_holds_several(tmp_path):
    write_worlds_folder(tmp_path, shots(), "a")
    write_worlds_folder(tmp_path, shots(), "b")
    (tmp_path / "notes").mkdir()
    several = open_dataset("worlds-folder", tmp_path)
    assert [several.name(index) for index in range(len(several))] == ["a", "b"]
    one = open_dataset("worlds-folder", tmp_path / "b")
    assert len(one) == 1 and one.name(0) == "b"
    assert_equal(one.sample(0, 3, SMALL, 0), several.sample(0, 3, SMALL, 0))


def test_binary_and_text_models_are_the_same(tmp_path):
    import pycolmap

    write_worlds_folder(tmp_path, shots())
    model = tmp_path / "kitchen" / "sparse" / "0"
    text = open_dataset("worlds-folder", tmp_path).sample(0, 3, SMALL, 0)
    pycolmap.Reconstruction(str(model)).write_binary(str(model))
    for path in model.glob("*.txt"):
        path.unlink()
    assert_equal(text, open_dataset("worlds-folder", tmp_path).sample(0, 3, SMALL, 0))


def test_off_centre_cameras_keep_their_principal_point_in_a_worlds_folder(tmp_path):
    write_worlds_folder(tmp_path, [shoot(0.0, principal_point=(8.0, 5.0))])
    views = open_dataset("worlds-folder", tmp_path, augmentation=PLAIN).sample(0, 1, STORED, 0)
    np.testing.assert_allclose(views.K[0, 0, :2, 2], [8.0, 5.0], atol=1e-4)


def test_elsewhere_a_principal_point_near_the_border_is_an_error_that_names_the_picture(tmp_path):
    write_arkitscenes(tmp_path, [shoot(0.0, principal_point=(8.0, 5.0))])
    with pytest.raises(InputError, match=r"_10\.033\.jpg: the principal point \(8\.0, 5\.0\)"):
        open_dataset("arkitscenes", tmp_path).sample(0, 1, SMALL, 0)


@pytest.mark.parametrize("content", ["{}", '{"depth_unit": 0}', '{"depth_unit": "mm"}', "[]"])
def test_a_depth_unit_must_be_a_number(tmp_path, content):
    write_worlds_folder(tmp_path, shots())
    (tmp_path / "kitchen" / "scene.json").write_text(content)
    with pytest.raises(InputError, match=r"scene\.json has depth_unit") as caught:
        open_dataset("worlds-folder", tmp_path).sample(0, 1, SMALL, 0)
    assert "0.001" in caught.value.hint


def test_distorted_cameras_are_refused(tmp_path):
    write_worlds_folder(tmp_path, shots())
    path = tmp_path / "kitchen" / "sparse" / "0" / "cameras.txt"
    path.write_text(path.read_text().replace("1 PINHOLE 96 72 90.0", "1 RADIAL 96 72 0.1 90.0", 1))
    with pytest.raises(InputError, match="RADIAL camera, expected PINHOLE"):
        open_dataset("worlds-folder", tmp_path).sample(0, 1, SMALL, 0)


def test_pictures_with_an_orientation_flag_or_another_size_are_refused(tmp_path):
    write_worlds_folder(tmp_path, shots()[:1])
    path = tmp_path / "kitchen" / "images" / "left" / "0000.png"
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(shots()[0].pixels).save(path, exif=exif)
    with pytest.raises(InputError, match=r"0000\.png has an orientation flag"):
        open_dataset("worlds-folder", tmp_path).sample(0, 1, SMALL, 0)
    save_picture(path, shots()[0].pixels[:-2])
    with pytest.raises(InputError, match=r"0000\.png has 96 x 70 pixels and its camera 96 x 72"):
        open_dataset("worlds-folder", tmp_path).sample(0, 1, SMALL, 0)


@pytest.mark.parametrize("kind", ["arkitscenes", "scannetpp"])
def test_depth_of_another_size_or_of_8_bits_is_an_error(tmp_path, kind):
    WRITERS[kind](tmp_path, shots())
    for wrong, reason in ((np.ones((36, 48), np.uint16), "48 x 36"), (np.ones(STORED, np.uint8), "uint16")):
        for path in [*tmp_path.glob("**/lowres_depth/*.png"), *tmp_path.glob("**/depth/*.png")]:
            save_picture(path, wrong)
        with pytest.raises(InputError, match=reason):
            open_dataset(kind, tmp_path).sample(0, 1, SMALL, 0)


def test_a_camera_that_is_not_rigid_is_an_error(tmp_path):
    write_megadepth(tmp_path, shots())
    for path in tmp_path.glob("0001/**/*.npz"):
        arrays = dict(np.load(path))
        np.savez(path, **{**arrays, "cam2world": arrays["cam2world"] * 2})
    with pytest.raises(InputError, match=r"_b\.jpg\.jpg: expected a rigid camera pose"):
        open_dataset("megadepth", tmp_path).sample(0, 1, SMALL, 0)


def test_portrait_scenes_are_turned_only_on_request(tmp_path):
    write_co3d(tmp_path, [shoot(0.1 * index, (96, 72), (35.5, 47.5)) for index in range(3)])
    shapes = [
        open_dataset("co3d", tmp_path, augmentation=Augmentation(follow_orientation=follow))
        .sample(0, 2, SMALL, 0)
        .depth
        for follow in (False, True)
    ]
    assert [tuple(depth.shape[2:]) for depth in shapes] == [SMALL, SMALL[::-1]]


def test_crop_jitter_tightens_by_the_share_of_the_picture_that_is_published(tmp_path):
    """At half the published width, half the pixels: up to 128 of 256 for ScanNet++, up to 8 for MegaDepth."""
    for kind, write, most in (("scannetpp", write_scannetpp, 127), ("megadepth", write_megadepth, 7)):
        root = tmp_path / kind
        root.mkdir()
        write(root, shots())
        focal = {}
        for jitter in (False, True):
            dataset = open_dataset(kind, root, augmentation=Augmentation(colour_jitter=False, crop_jitter=jitter))
            focal[jitter] = dataset.sample(0, 24, (192, 256), seed=0).K[0, :, 0, 0].numpy()
        extra = (focal[True] / focal[False].min() - 1) * 192
        assert extra.min() + 1e-3 >= 0 and 0.7 * most < extra.max() < most + 1e-2
