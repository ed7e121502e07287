"""Which pixels are trusted after alignment."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from manyview.alignment.cleaning import apply_masks, clean_confidence, confident_masks, fused_confidence
from manyview.alignment.problem import Alignment, PairMaps
from manyview.errors import InputError
from manyview.geometry import intrinsics


def aligned(confidence, depth, K, world_from_camera, groups=None) -> Alignment:
    return Alignment(
        world_from_camera=np.asarray(world_from_camera, dtype=np.float64),
        K=K,
        depth=list(depth),
        confidence=list(confidence),
        world_from_pair=np.zeros((0, 4, 4)),
        objective=0.0,
        seconds=0.0,
        mode="fast",
        steps=0,
        groups=(tuple(range(len(K))),) if groups is None else groups,
    )


@pytest.fixture(scope="module")
def saved(shared) -> dict[str, np.ndarray]:
    return dict(np.load(shared / "reference/dust3r/golden_ga6_mst_cosine300.npz"))


def test_the_fused_confidence_is_the_published_one(saved, shared):
    first, second = (np.load(shared / f"reference/dust3r/golden_ga6_inputs_view{number}.npz") for number in (1, 2))
    points = zip(first["pts3d_1"].astype(np.float32), second["pts3d_2in1"].astype(np.float32), strict=True)
    confidence = zip(first["conf_1"].astype(np.float32), second["conf_2"].astype(np.float32), strict=True)
    pairs = PairMaps.checked(first["edges"], list(points), list(confidence))
    np.testing.assert_array_equal(np.stack(fused_confidence(pairs)), saved["im_conf"])


def test_cleaning_is_the_published_one(saved):
    before = saved["im_conf"].copy()
    K = np.stack([intrinsics(float(focal), (32.0, 24.0)) for focal in saved["final_focals"]])
    cleaned = np.stack(clean_confidence(aligned(saved["im_conf"], saved["final_depth"], K, saved["final_poses"])))
    expected = saved["im_conf_clean"]
    assert (expected != saved["im_conf"]).mean() > 0.1
    # A pixel on the edge between two others, or a depth at the limit, may fall on either side.
    assert (cleaned != expected).mean() < 1e-3
    np.testing.assert_array_equal(saved["im_conf"], before)


def two_walls(near_confidence: float, groups=None) -> Alignment:
    """Picture 0 has a point right before the wall that picture 1 sees."""
    depth = [np.full((5, 7), 2.0), np.full((5, 7), 2.0)]
    depth[0][2, 3] = 1.0
    confidence = [np.full((5, 7), 4.0), np.full((5, 7), 5.0)]
    confidence[0][2, 3] = near_confidence
    return aligned(confidence, depth, np.stack([intrinsics(6.0, (3.0, 2.0))] * 2), np.stack([np.eye(4)] * 2), groups)


def test_a_point_before_a_trusted_surface_is_dropped_and_no_other():
    cleaned = clean_confidence(two_walls(4.0))
    expected = np.full((5, 7), 4.0)
    expected[2, 3] = 0.0
    np.testing.assert_array_equal(cleaned[0], expected)
    np.testing.assert_array_equal(cleaned[1], np.full((5, 7), 5.0))
    assert cleaned[0].dtype == np.float32


def test_a_point_trusted_more_than_the_surface_behind_it_stays():
    assert clean_confidence(two_walls(6.0))[0][2, 3] == 6.0


def test_pictures_without_a_common_frame_say_nothing_of_each_other():
    assert clean_confidence(two_walls(4.0, groups=((0,), (1,))))[0][2, 3] == 4.0


def test_cleaning_never_raises_confidence_and_has_its_options():
    assert clean_confidence(two_walls(4.0), bad_confidence=2.0)[0][2, 3] == 2.0
    assert clean_confidence(two_walls(1.5), bad_confidence=2.0)[0][2, 3] == 1.5
    assert clean_confidence(two_walls(4.0), tolerance=0.6)[0][2, 3] == 4.0


def test_pixels_without_depth_and_pictures_of_other_sizes_are_no_obstacle():
    walls = two_walls(4.0)
    confidence, depth, K, cameras = walls.confidence, walls.depth, walls.K, walls.world_from_camera
    depth[0][0, 0] = np.nan
    depth[0][0, 1] = 0.0
    depth[1], confidence[1] = np.full((4, 6), 2.0), np.full((4, 6), 5.0)
    cleaned = clean_confidence(aligned(confidence, depth, K, cameras))
    assert cleaned[0][0, :2].tolist() == [4.0, 4.0]
    assert cleaned[0][2, 3] == 0.0
    assert cleaned[1].shape == (4, 6)


def test_masks_take_confidence_away_and_nothing_else():
    ones = torch.ones(2, 3)
    points = torch.zeros(2, 3, 3)
    pairs = PairMaps.checked([(0, 1), (1, 0)], [(points, points)] * 2, [(4 * ones, 2 * ones), (3 * ones, 5 * ones)])
    mask = np.array([[True, False, True], [True, True, False]])
    masked = apply_masks(pairs, [mask, None])
    expected = torch.as_tensor(mask)
    assert torch.equal(masked.confidence[0][0], 4.0 * expected)
    assert torch.equal(masked.confidence[1][1], 5.0 * expected)
    assert masked.confidence[0][1] is pairs.confidence[0][1]
    assert torch.equal(pairs.confidence[0][0], 4 * ones)
    np.testing.assert_array_equal(fused_confidence(masked)[0], 5.0 * mask)
    np.testing.assert_array_equal(confident_masks(fused_confidence(masked), 3.0)[1], np.zeros((2, 3), dtype=bool))
    with pytest.raises(InputError, match="1 masks for 2"):
        apply_masks(pairs, [mask])
    with pytest.raises(InputError, match=r"\(3, 2\)"):
        apply_masks(pairs, [mask.T, None])
