"""`manyview worlds`: what is written is read back by COLMAP's and our own readers and is the world that was made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pycolmap
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from manyview.cli import app
from manyview.datasets import open_dataset
from manyview.errors import ExportError, InputError
from manyview.files import read_json
from manyview.worlds import WorldSettings, render_worlds
from manyview.worlds.folder import write_worlds

SIZE = (48, 64)
SETTINGS = WorldSettings(moving=(3, 4), samples=2, compositions=("clutter",))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("worlds") / "out"
    write_worlds(out, [4, 5], views=3, size=SIZE, settings=SETTINGS)
    return out


def test_pictures_and_depth_are_those_of_the_world(folder: Path) -> None:
    batch = render_worlds([4], 3, SIZE, SETTINGS)
    unit = read_json(folder / "world-4" / "scene.json")["depth_unit"]
    for view in range(3):
        picture = np.asarray(Image.open(folder / "world-4" / "images" / f"{view:05d}.png"))
        np.testing.assert_allclose(picture / 255, batch.images[0, view].permute(1, 2, 0), atol=0.51 / 255)
        counts = np.asarray(Image.open(folder / "world-4" / "depth" / f"{view:05d}.png"))
        assert counts.dtype == np.uint16
        np.testing.assert_allclose(counts * unit, batch.depth[0, view], atol=0.51 * unit)
        assert ((counts == 0) == ~batch.valid[0, view].numpy()).all()


def test_moving_things_are_masked_and_leave_no_points(folder: Path) -> None:
    batch = render_worlds([4], 3, SIZE, SETTINGS)
    assert batch.moving.any()
    for view in range(3):
        mask = np.asarray(Image.open(folder / "world-4" / "masks" / f"{view:05d}.png"))
        assert ((mask == 255) == batch.moving[0, view].numpy()).all()


def test_colmap_reads_the_exact_cameras_and_points_that_reproject(folder: Path) -> None:
    model = pycolmap.Reconstruction(str(folder / "world-5" / "sparse" / "0"))
    batch = render_worlds([5], 3, SIZE, SETTINGS)
    assert model.num_reg_images() == 3
    for image in model.images.values():
        view = int(Path(image.name).stem)
        camera_from_world = np.vstack([image.cam_from_world().matrix(), [0, 0, 0, 1]])
        expected = torch.linalg.inv(batch.world_from_camera[0, view].double()).numpy()
        np.testing.assert_allclose(camera_from_world, expected, atol=1e-5)
        K = batch.K[0, view].numpy()
        np.testing.assert_allclose(image.camera.params, [K[0, 0], K[1, 1], K[0, 2] + 0.5, K[1, 2] + 0.5], atol=1e-4)
    assert len(model.points3D) > 500
    assert model.compute_mean_reprojection_error() < 0.01


def test_our_reader_of_posed_folders_gives_the_world_back(folder: Path) -> None:
    dataset = open_dataset("worlds-folder", folder)
    assert len(dataset) == 2
    sample = dataset.sample(0, 2, SIZE, seed=1)
    points, valid = sample.points[0], sample.valid[0]
    camera_from_world = torch.linalg.inv(sample.world_from_camera[0])
    in_camera = torch.einsum("nij,nhwj->nhwi", camera_from_world[:, :3, :3], points)
    in_camera = in_camera + camera_from_world[:, None, None, :3, 3]
    assert valid.float().mean() > 0.3
    torch.testing.assert_close(in_camera[..., 2][valid], sample.depth[0][valid], atol=1e-3, rtol=1e-4)


def test_results_are_not_replaced_unless_asked_and_small_pictures_are_refused(folder: Path) -> None:
    with pytest.raises(ExportError, match="already holds"):
        write_worlds(folder, [4], views=2, size=SIZE)
    with pytest.raises(InputError, match="no worlds"):
        write_worlds(folder / "new", [], views=2, size=SIZE)
    with pytest.raises(InputError, match="16 x 16"):
        write_worlds(folder / "new", [4], views=2, size=(8, 8))
    assert not (folder / "new").exists()


def test_the_command_writes_a_world_of_the_kind_that_was_asked_for(tmp_path: Path) -> None:
    out = tmp_path / "w"
    arguments = ["worlds", "-o", str(out), "--size", "64x48", "--views", "2", "--show", "terrain", "--paths", "forward"]
    result = CliRunner().invoke(app, [*arguments, "--samples", "1"])
    assert result.exit_code == 0, result.output
    about = read_json(out / "world-0" / "scene.json")
    assert about["settings"]["compositions"] == ["terrain"]
    assert len(about["views"]) == 2
    assert Image.open(out / "world-0" / "images" / "00000.png").size == (64, 48)


@pytest.mark.parametrize(
    ("option", "words"), [(["--show", "castle"], "compositions"), (["--size", "64"], "WIDTHxHEIGHT")]
)
def test_the_command_refuses_what_it_does_not_know(tmp_path: Path, option: list[str], words: str) -> None:
    result = CliRunner().invoke(app, ["worlds", "-o", str(tmp_path / "w"), *option])
    assert isinstance(result.exception, InputError)
    assert words in str(result.exception)
    assert not (tmp_path / "w").exists()
