"""Cameras and depth before and after refinement, beside plain COLMAP, on photographs and on made-up worlds.

    python benchmarks/refinement.py --worlds 20

Photographs: all photos of each set and every 2nd, 3rd and 4th, by the packaged model, refined, and by COLMAP's feature
extraction, exhaustive matching and incremental mapping as it comes (one camera for all photos; the largest model
counts), one after the other in the same run. Worlds: exact truth; whether a scene became worse and nothing said so.
Writes JSON with hardware, versions and command.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
from PIL import Image

import manyview
from manyview.evaluation.folders import Frame, read_folder
from manyview.evaluation.held_out import SceneErrors, Truth, compare_with_truth, photograph_world
from manyview.evaluation.poses import evaluate_poses
from manyview.files import write_json
from manyview.methods.model import Model, versions
from manyview.refine.colmap_log import quiet_colmap
from manyview.refine.densify import DensifyOptions
from manyview.refine.options import RefineOptions
from manyview.refine.refine import RefinedScene, refine_scene
from manyview.refine.scene_depth import densify_scene
from manyview.scene import Scene
from manyview.training.data import FIRST_HELD_OUT_SEED
from manyview.worlds.settings import WorldSettings
from model_card import REAL_SCENES, ROOT, ProgressLine, finite, hardware, markdown

PHOTOGRAPHS = ("fountain-p11", "box-rgbd")
STEPS = (1, 2, 3, 4)
ORDINALS = {2: "2nd", 3: "3rd", 4: "4th"}
WORLD_SIZE = (480, 640)
DIFFERENT_LENSES = 0.03  # largest relative difference of a photo's focal length from the world's
WORSE = 0.02  # of mAA(30): from that on a scene counts as made worse


def main() -> None:
    options = parse()
    model = manyview.load(options.model, device="cpu")
    start = time.perf_counter()
    record = {
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": f"python benchmarks/refinement.py --worlds {options.worlds} --views {options.views}",
        "hardware": hardware(model),
        "versions": {**versions(), "pycolmap": pycolmap.__version__},
        "model": {"name": model.info.name, "weights_sha256": model.info.weights_sha256},
        "threads": options.threads,
        "photographs": photographs(model, options) if options.real.is_dir() else [],
        "worlds": worlds(model, options, focal_jitter=0.0),
        "worlds_of_many_lenses": worlds(model, options, focal_jitter=DIFFERENT_LENSES),
    }
    record["seconds"] = round(time.perf_counter() - start, 1)
    write_json(options.out, record)
    print(tables(record))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="manyview-small", help="as manyview.load takes it")
    parser.add_argument("--worlds", type=int, default=20, help="how many made-up worlds")
    parser.add_argument("--views", type=int, default=8, help="pictures of each world")
    parser.add_argument("--threads", type=int, default=1, help="of matching and mapping, here and in COLMAP")
    parser.add_argument("--real", type=Path, default=REAL_SCENES, help="folder of real scenes; left out if missing")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "refinement.json")
    return parser.parse_args()


# ------------------------------------------------------------------ photographs
def photographs(model: Model, options: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for name in PHOTOGRAPHS:
        if not (options.real / name).is_dir():
            print(f"{name}: not there, left out", file=sys.stderr)
            continue
        frames = read_folder(options.real / name).frames
        for step in STEPS:
            for first in range(step):
                print(f"{name}: every {step} from {first}", file=sys.stderr)
                row = {"scene": name, "step": step, "first": first}
                rows.append({**row, **photograph_row(model, frames[first::step], options, densify=step == 1)})
    return rows


def photograph_row(
    model: Model, frames: Sequence[Frame], options: argparse.Namespace, *, densify: bool
) -> dict[str, Any]:
    """Everything about one set of photos."""
    truth = Truth(cameras=[frame.camera for frame in frames], depth=[frame.depth() for frame in frames])
    start = time.perf_counter()
    scene = model.reconstruct([frame.path for frame in frames], strict=True)
    network_seconds = time.perf_counter() - start
    start = time.perf_counter()
    refined = refine_scene(scene, RefineOptions(threads=options.threads))
    refine_seconds = time.perf_counter() - start
    plain, plain_seconds = plain_colmap([frame.path for frame in frames], options.threads)
    row = {
        "views": len(frames),
        "network": figures(compare_with_truth(scene, truth)),
        "refined": figures(compare_with_truth(refined.scene, truth)),
        "kept": refined.cameras.kept,
        "registered": len(refined.cameras.registered),
        "reprojection_error": refined.cameras.reprojection_error,
        "sparse_points": len(refined.cameras.points),
        "colmap": {
            "registered": sum(camera is not None for camera in plain),
            "maa30": evaluate_poses(plain, true_cameras(truth)).maa30,
        },
        "beyond_colmap": beyond(refined, plain, truth),
        "seconds": {
            "network": round(network_seconds, 2),
            "refine": round(refine_seconds, 2),
            **{f"refine: {part}": value for part, value in refined.cameras.seconds.items()},
            "colmap": round(plain_seconds["all"], 2),
            "colmap: mapping": round(plain_seconds["mapping"], 2),
        },
    }
    if densify and refined.cameras.kept == "refined":
        row["dense"] = dense_figures(refined.scene, truth)
    return tidy(row)


def dense_figures(scene: Scene, truth: Truth) -> dict[str, Any]:
    start = time.perf_counter()
    found = densify_scene(scene, DensifyOptions())
    seconds = time.perf_counter() - start
    cloud = found.dense.cloud
    return {
        "seconds": round(seconds, 1),
        "points": len(cloud),
        "views_a_point": float(cloud.view_counts.mean()) if len(cloud) else None,
        "pixels_confirmed": float(np.mean([view.valid.mean() for view in found.scene.views])),
        **figures(compare_with_truth(found.scene, truth)),
        **disagreement(found.scene),
    }


def disagreement(scene: Scene) -> dict[str, float | None]:
    """How far confirmed points of one view are from what every other view that sees them has there.

    Median over the points of neighbouring views, of pixels (where the other view's point falls in the first picture)
    and of depth (relative).
    """
    pixels, depth = [], []
    views = [view for view in scene.views if view.network_camera is not None]
    for first in views:
        camera = first.network_camera
        assert camera is not None
        rows, columns = np.nonzero(first.valid)
        chosen = np.random.default_rng(0).choice(len(rows), min(2000, len(rows)), replace=False)
        points = first.points[rows[chosen], columns[chosen]].astype(np.float64)
        own = np.stack([columns[chosen], rows[chosen]], axis=-1)
        for other in views:
            seen_from = other.network_camera
            if other is first or seen_from is None:
                continue
            shown, away = seen_from.project(points)
            x, y = np.rint(np.nan_to_num(shown, nan=-1)).astype(int).T
            inside = (x >= 0) & (y >= 0) & (x < other.size[1]) & (y < other.size[0])
            x, y = np.where(inside, x, 0), np.where(inside, y, 0)
            there = other.depth[y, x].astype(np.float64)
            same = inside & other.valid[y, x] & (np.abs(there / np.maximum(away, 1e-9) - 1) < 0.1)  # not hidden
            back, _ = camera.project(seen_from.unproject(shown[same], there[same]))
            pixels.append(np.linalg.norm(back - own[same], axis=1))
            depth.append(np.abs(there[same] / away[same] - 1))
    joined = np.concatenate(pixels) if pixels else np.zeros(0)
    return {
        "between_views_pixels": float(np.median(joined)) if len(joined) else None,
        "between_views_depth": float(np.median(np.concatenate(depth))) if len(joined) else None,
    }


def plain_colmap(paths: Sequence[Path], threads: int) -> tuple[list[np.ndarray | None], dict[str, float]]:
    """world_from_camera of each photo, None where COLMAP's largest model does not have it, and seconds."""
    with tempfile.TemporaryDirectory() as scratch, quiet_colmap():
        folder = Path(scratch)
        (folder / "photos").mkdir()
        for path in paths:
            (folder / "photos" / path.name).symlink_to(path.resolve())
        start = time.perf_counter()
        extraction = pycolmap.FeatureExtractionOptions(num_threads=threads, use_gpu=False)
        pycolmap.extract_features(
            folder / "matches.db",
            folder / "photos",
            camera_mode=pycolmap.CameraMode.SINGLE,
            extraction_options=extraction,
            device=pycolmap.Device.cpu,
        )
        matching = pycolmap.FeatureMatchingOptions(num_threads=threads, use_gpu=False)
        pycolmap.match_exhaustive(folder / "matches.db", matching_options=matching, device=pycolmap.Device.cpu)
        mapped = time.perf_counter()
        settings = pycolmap.IncrementalPipelineOptions(num_threads=threads, random_seed=0)
        models = pycolmap.incremental_mapping(folder / "matches.db", folder / "photos", folder, settings)
        end = time.perf_counter()
    largest = max(models.values(), key=lambda model: model.num_reg_images(), default=None)
    found: dict[str, np.ndarray] = {}
    if largest is not None:
        for number in largest.reg_image_ids():
            image = largest.image(number)
            found[image.name] = np.linalg.inv(np.vstack([image.cam_from_world().matrix(), [0, 0, 0, 1]]))
    return [found.get(path.name) for path in paths], {"all": end - start, "mapping": end - mapped}


def beyond(refined: RefinedScene, plain: Sequence[np.ndarray | None], truth: Truth) -> list[dict[str, Any]]:
    """The views that COLMAP has no camera for: where ours is from, and how wrong it is.

    Errors are medians over the other registered views of the relative rotation and of the direction between the two
    centres, in degrees. (With two or three cameras a similarity over their centres would say little.)
    """
    true, cameras = true_cameras(truth), refined.scene.world_from_camera
    rows = []
    for index in [index for index, camera in enumerate(plain) if camera is None]:
        view = refined.cameras.views[index]
        others = [other for other in refined.cameras.registered if other != index]
        row: dict[str, Any] = {"name": refined.scene.views[index].name, "registered": view.registered}
        pairs = [evaluate_poses(cameras[[index, other]], [true[index], true[other]]) for other in others]
        if pairs and np.isfinite(cameras[index]).all():
            row["rotation_error"] = float(np.median([pair.median_rotation_error for pair in pairs]))
            row["direction_error"] = float(np.median([pair.median_translation_error for pair in pairs]))
        rows.append(row)
    return rows


def true_cameras(truth: Truth) -> list[np.ndarray]:
    return [camera.world_from_camera for camera in truth.cameras if camera is not None]


# ------------------------------------------------------------------ worlds
def worlds(model: Model, options: argparse.Namespace, *, focal_jitter: float) -> list[dict[str, Any]]:
    line, rows = ProgressLine("worlds"), []
    for number in range(options.worlds):
        settings = WorldSettings(focal_jitter=focal_jitter, samples=4)
        rows.append(tidy(world_row(model, FIRST_HELD_OUT_SEED + number, settings, options)))
        line(number + 1, options.worlds, "worlds")
    return rows


def world_row(model: Model, seed: int, settings: WorldSettings, options: argparse.Namespace) -> dict[str, Any]:
    pictures, truth = photograph_world(seed, options.views, WORLD_SIZE, settings)
    with tempfile.TemporaryDirectory() as scratch:
        paths = [Path(scratch) / f"{number:03d}.png" for number in range(len(pictures))]
        for path, picture in zip(paths, pictures, strict=True):
            Image.fromarray(picture).save(path)
        scene = model.reconstruct(paths, strict=True)
        start = time.perf_counter()
        refined = refine_scene(scene, RefineOptions(threads=options.threads))
        seconds = time.perf_counter() - start
    before, after = (figures(compare_with_truth(each, truth)) for each in (scene, refined.scene))
    lost = before["maa30"] - after["maa30"] > WORSE
    return {
        "seed": seed,
        "kept": refined.cameras.kept,
        "registered": len(refined.cameras.registered),
        "reprojection_error": refined.cameras.reprojection_error,
        "before": before,
        "after": after,
        "worse": bool(lost),
        "said": list(refined.cameras.warnings),
        "refine_seconds": round(seconds, 2),
    }


# ------------------------------------------------------------------ figures
def figures(errors: SceneErrors) -> dict[str, Any]:
    poses, depth = errors.poses, errors.depth
    assert poses is not None
    return {
        "cameras_found": errors.cameras_found,
        "maa30": poses.maa30,
        "rotation_error": poses.median_rotation_error,
        "translation_error": poses.median_translation_error,
        "focal_error": errors.focal_error,
        "abs_rel": depth.abs_rel if depth else None,
        "delta_125": depth.delta_125 if depth else None,
        "coverage": errors.coverage,
    }


def tidy(row: Any) -> Any:
    """Numbers that JSON can hold, with as many digits as mean something."""
    if isinstance(row, dict):
        return {key: tidy(value) for key, value in finite(row).items()}
    if isinstance(row, list):
        return [tidy(value) for value in row]
    return float(f"{row:.4g}") if isinstance(row, float) else row


# ------------------------------------------------------------------ tables
def tables(record: dict[str, Any]) -> str:
    parts = []
    if record["photographs"]:
        parts += [photograph_table(record), beyond_table(record), dense_table(record)]
    parts.append(world_table(record["worlds"], "of one camera each"))
    parts.append(world_table(record["worlds_of_many_lenses"], "whose photos differ in focal length by up to 3 %"))
    return "\n\n".join([*parts, measured_on(record)])


def measured_on(record: dict[str, Any]) -> str:
    hardware, versions = record["hardware"], record["versions"]
    return (
        f"{hardware['processor']}, {hardware['cores']} cores, matching and mapping on {record['threads']}, on a shared "
        f"machine; pycolmap {versions['pycolmap']}, torch {versions['torch']}, Python {versions['python']}; model "
        f"{record['model']['name']}; `{record['command']}`. COLMAP ran in the same run, right after ours."
    )


def photograph_table(record: dict[str, Any]) -> str:
    columns = (
        ("photos", "photos", "s"),
        ("views", "number", "d"),
        ("colmap_registered", "COLMAP: registered", "d"),
        ("colmap_maa", "mAA(30)", "%"),
        ("colmap_seconds", "s", "d"),
        ("network_maa", "network: mAA(30)", "%"),
        ("registered", "refined: registered", "d"),
        ("maa", "mAA(30)", "%"),
        ("error", "error, px", "d"),
        ("seconds", "s", "d"),
    )
    rows = []
    for row in record["photographs"]:
        rows.append(
            {
                "photos": set_name(row),
                "views": row["views"],
                "colmap_registered": row["colmap"]["registered"],
                "colmap_maa": row["colmap"]["maa30"],
                "colmap_seconds": f"{row['seconds']['colmap']:.0f}",
                "network_maa": row["network"]["maa30"],
                "registered": row["registered"],
                "maa": row["refined"]["maa30"],
                "error": "–" if row["reprojection_error"] is None else f"{row['reprojection_error']:.2f}",
                "seconds": f"{row['seconds']['refine']:.0f}",
            }
        )
    return markdown(columns, rows)


def beyond_table(record: dict[str, Any]) -> str:
    """Every view that COLMAP has no camera for."""
    how = {"matches": "by its matches", "guess": "from the network's camera", "no": "not: the network's camera, moved"}
    rows = []
    for row in record["photographs"]:
        for extra in row["beyond_colmap"]:
            unknown = {"rotation_error": None, "direction_error": None}
            rows.append({"photos": set_name(row), **unknown, **extra, "registered": how[extra["registered"]]})
    if not rows:
        return "COLMAP found all cameras of all sets."
    columns = (
        ("photos", "photos", "s"),
        ("name", "without a camera in COLMAP", "s"),
        ("registered", "here: registered", "s"),
        ("rotation_error", "rotation", "°"),
        ("direction_error", "direction", "°"),
    )
    return markdown(columns, rows)


def set_name(row: dict[str, Any]) -> str:
    which = "all" if row["step"] == 1 else f"every {ORDINALS[row['step']]}, from {row['first'] + 1}"
    return f"{row['scene']}, {which}"


def dense_table(record: dict[str, Any]) -> str:
    columns = (
        ("what", "photos, depth", "s"),
        ("abs_rel", "abs-rel", "%"),
        ("delta_125", "δ < 1.25", "%"),
        ("coverage", "of the sensor's pixels", "%"),
        ("points", "points", "d"),
        ("between", "between views, px", "d"),
        ("seconds", "s", "d"),
    )
    rows = []
    for row in record["photographs"]:
        if "dense" not in row:
            continue
        empty = {"points": "", "between": "", "seconds": ""}
        for what in ("network", "refined"):
            if row[what]["abs_rel"] is not None:  # there is a sensor to compare with
                rows.append({"what": f"{row['scene']}, {what}", **row[what], **empty})
        dense = row["dense"]
        between = "–" if dense["between_views_pixels"] is None else f"{dense['between_views_pixels']:.2f}"
        found = {"points": f"{dense['points']:,}", "between": between, "seconds": f"{dense['seconds']:.0f}"}
        rows.append({"what": f"{row['scene']}, dense (confirmed pixels)", **dense, **found})
    return markdown(columns, rows)


def world_table(worlds: Sequence[dict[str, Any]], which: str) -> str:
    rows = []
    for what in ("before", "after"):
        found = [row[what] for row in worlds]
        rows.append(
            {
                "what": {"before": "the network's", "after": "after refinement"}[what],
                **{
                    name: median_of(found, name)
                    for name in ("rotation_error", "translation_error", "focal_error", "abs_rel", "delta_125")
                },
                "maa30": float(np.mean([each["maa30"] for each in found])),
            }
        )
    columns = (
        ("what", "cameras", "s"),
        ("maa30", "mAA(30), mean", "%"),
        ("rotation_error", "rotation", "°"),
        ("translation_error", "direction", "°"),
        ("focal_error", "focal length", "%"),
        ("abs_rel", "depth abs-rel", "%"),
        ("delta_125", "δ < 1.25", "%"),
    )
    kept = sum(row["kept"] == "refined" for row in worlds)
    worse = [row for row in worlds if row["worse"]]
    silent = [row for row in worse if not row["said"]]
    told = (
        f"{len(worlds)} worlds {which} (medians over the worlds): in {kept} the refined cameras were taken; "
        f"{len(worse)} became worse by more than {WORSE:.0%} of mAA(30), {len(silent)} of them without a warning."
    )
    return f"{told}\n\n{markdown(columns, rows)}"


def median_of(rows: Sequence[dict[str, Any]], name: str) -> float | None:
    known = [row[name] for row in rows if row[name] is not None]
    return float(np.median(known)) if known else None


if __name__ == "__main__":
    main()
