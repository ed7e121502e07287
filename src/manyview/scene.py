"""`Scene`: the result of a reconstruction, the same for every model family."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal

import numpy as np

from manyview.errors import ExportError, InputError
from manyview.files import staged
from manyview.geometry.cameras import Camera
from manyview.scene_points import FusedPoints, PointCloud, SparsePoints, gather_points

__all__ = [
    "EXPORTERS",
    "ExportOptions",
    "FusedPoints",
    "PointCloud",
    "Provenance",
    "Scene",
    "SceneView",
    "SparsePoints",
    "ViewStatus",
    "World",
]

ViewStatus = Literal["used", "low_confidence", "camera_not_found", "other_group"]
World = Literal["first camera", "given", "gravity up", "east down north"]

_WORLDS: dict[str, str] = {
    "given": "that of the given cameras",
    "gravity up": "upright: y points down, z is where the first camera looks along the ground, the origin that camera",
    "east down north": "upright: x points east, y down, z north; the origin is a photo's place",
}
EXPORTERS = "manyview.exporters"  # the entry-point group in which formats are found by name


@dataclass(frozen=True, kw_only=True, eq=False)
class SceneView:
    """One view of a scene. (H, W) is the size the network worked at.

    Attributes:
        name, source, original_size, original_from_network, upright_in_file, timestamp: as in `images.View`.
        image: (H, W, 3) uint8 RGB.
        camera: in original pixels; None if it could not be found (never a silent identity).
        depth: (H, W) float32, z-depth in this view's camera in world units; 0 where not `valid`.
        points: (H, W, 3) float32, world frame; 0 where not `valid`.
        confidence: (H, W) float32, at least 1.
        valid: (H, W) bool, False for padding, non-finite numbers and points behind the camera.
        status: "used", or what is wrong with this view; `status_reason` says it in words.
        masked_pixels: how many pixels `masked` took out because the network gave numbers that are not finite.
        group: 0 for the views that share the scene's world. Where nothing links the pictures, the views of every other
            group have a frame and a scale of their own: then the status is "other_group", `camera` is None, `points`
            are in the group's frame and `group_camera` is the camera in it (see `Scene.group`).
    """

    name: str
    source: str | None
    original_size: tuple[int, int]
    original_from_network: np.ndarray
    image: np.ndarray
    camera: Camera | None
    depth: np.ndarray
    points: np.ndarray
    confidence: np.ndarray
    valid: np.ndarray
    status: ViewStatus = "used"
    status_reason: str = ""
    upright_in_file: bool = True
    timestamp: float | None = None
    masked_pixels: int = 0
    group: int = 0
    group_camera: Camera | None = None

    @classmethod
    def masked(
        cls, *, depth: np.ndarray, points: np.ndarray, confidence: np.ndarray, valid: np.ndarray, **others: Any
    ) -> SceneView:
        """A view from a network's raw numbers: pixels that cannot be used become invalid, and zero.

        Args:
            depth, points, confidence: (H, W), (H, W, 3), (H, W) of any float type; may hold nan, inf and depth <= 0.
            valid: (H, W) bool, False for padding.
            others: the remaining fields of `SceneView`.
        """
        with np.errstate(over="ignore"):  # too large for float32: infinite, and so masked below
            depth, points, confidence = (np.asarray(a).astype(np.float32) for a in (depth, points, confidence))
        finite = np.isfinite(depth) & np.isfinite(points).all(-1) & np.isfinite(confidence)
        kept = valid & finite & (np.where(finite, depth, 0) > 0)
        return cls(
            depth=np.where(kept, depth, np.float32(0)),
            points=np.where(kept[..., None], points, np.float32(0)),
            confidence=np.where(finite, np.maximum(confidence, np.float32(1)), np.float32(1)),
            valid=kept,
            masked_pixels=int((valid & ~finite).sum()),
            **others,
        )

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the picture as the network saw it."""
        return self.image.shape[0], self.image.shape[1]

    @property
    def network_camera(self) -> Camera | None:
        """The camera in network pixels; None if it could not be found."""
        if self.camera is None:
            return None
        K = np.linalg.inv(self.original_from_network) @ self.camera.K
        height, width = self.size
        return Camera(K=K, world_from_camera=self.camera.world_from_camera, width=width, height=height)


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a scene comes from: enough to repeat it."""

    model: str
    weights_sha256: str
    weights_licence: str
    settings: dict[str, str | int | float | bool | None] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict, compare=False)
    changes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What goes into exported files.

    Attributes:
        percentile: in each view, points whose confidence is below this percentile (0 to 100) are left out.
        min_confidence: points below it are left out too.
        include_low_confidence: also take points and cameras of views whose status is "low_confidence".
        max_points: most points in .ply and .glb files and in the initial points of nerfstudio; None for all.
        max_colmap_points: most points in a COLMAP model, where each has observations; None for all.
        seed: of the draw where there are more points.
        link_images: "link" places the photos as relative symbolic links (copies where the system has none), "copy"
            copies them. Pictures that must be turned or converted are always written anew.
        depth_tolerance: COLMAP observations: largest relative difference between a point's depth in another view and
            that view's own depth.
        masks: folder of pictures named as the photos (`<photo>.png`, or with the photo's ending replaced): white where
            a splat trainer should train, black where not; photos without one are trained on whole.
    """

    percentile: float = 20.0
    min_confidence: float | None = None
    include_low_confidence: bool = False
    max_points: int | None = 1_000_000
    max_colmap_points: int | None = 100_000
    seed: int = 0
    link_images: Literal["link", "copy"] = "link"
    depth_tolerance: float = 0.02
    masks: str | Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.percentile <= 100:
            raise ExportError(f"the percentile is {self.percentile}", hint="Give a number from 0 to 100.")
        for name in ("max_points", "max_colmap_points"):
            if (most := getattr(self, name)) is not None and most < 1:
                raise ExportError(f"{name} is {most}", hint="Give at least 1, or None for all.")
        if self.min_confidence is not None and not math.isfinite(self.min_confidence):
            raise ExportError(f"min_confidence is {self.min_confidence}", hint="Give a number, or None.")
        if not 0 <= self.depth_tolerance < math.inf:
            raise ExportError(f"depth_tolerance is {self.depth_tolerance}", hint="Give a share, such as 0.02.")
        if self.seed < 0:
            raise ExportError(f"the seed is {self.seed}", hint="Give 0 or more.")
        if self.link_images not in ("link", "copy"):
            raise ExportError(f"link_images is {self.link_images!r}", hint='Give "link" or "copy".')


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """Cameras, depth and points of N views in one world (OpenCV axes).

    Lengths are in scene units; they are metres only if `metric`.

    Attributes:
        world: the first camera's frame; that of the cameras that the user gave; or an upright one with y down, in which
            z is where the first camera looks along the ground ("gravity up"), or north ("east down north").
        sparse: points triangulated from matches between the photos, if there are any.
        fused: points of dense depth that several views confirm, each there once; then `point_cloud` is made of them.
    """

    views: Sequence[SceneView]
    provenance: Provenance
    skipped: Sequence[tuple[str, str]] = ()
    warnings: Sequence[str] = ()
    metric: bool = False
    world: World = "first camera"
    sparse: SparsePoints | None = None
    fused: FusedPoints | None = None

    @property
    def units(self) -> str:
        """What lengths are in, in words."""
        return "metres" if self.metric else "scene units (the scale is not known; not metres)"

    @property
    def frame(self) -> str:
        """What frame points and cameras are in, in words."""
        return f"{self.origin}, OpenCV axes: x right, y down, z forward"

    @property
    def origin(self) -> str:
        """What the world's origin is, in words."""
        if self.world in _WORLDS:
            return f"world = {_WORLDS[self.world]}"
        first = next((view for view in self.views if view.group == 0), None)
        if first is None or first is self.views[0]:
            words = "the first view"
        else:
            words = f"the first view that is linked, {first.name}"
        if first is not None and first.camera is None:
            return f"world = about the camera of {words}, which could not be found exactly"
        return f"world = camera of {words}"

    @property
    def world_from_camera(self) -> np.ndarray:
        """(N, 4, 4) float64; nan for views whose camera was not found."""
        missing = np.full((4, 4), np.nan)
        matrices = [missing if view.camera is None else view.camera.world_from_camera for view in self.views]
        return np.array(matrices, dtype=np.float64).reshape(-1, 4, 4)

    @property
    def K(self) -> np.ndarray:
        """(N, 3, 3) float64, original pixels; nan for views whose camera was not found."""
        missing = np.full((3, 3), np.nan)
        matrices = [missing if view.camera is None else view.camera.K for view in self.views]
        return np.array(matrices, dtype=np.float64).reshape(-1, 3, 3)

    @property
    def groups(self) -> int:
        """How many groups of pictures there are that nothing links."""
        return 1 + max((view.group for view in self.views), default=0)

    def group(self, index: int) -> Scene:
        """The views of one group as a scene of their own, in their own frame; 0 is the one in the scene's world.

        Raises:
            InputError: there is no such group.
        """
        if not 0 <= index < self.groups:
            raise InputError(f"there is no group {index}", hint=f"Groups are 0 to {self.groups - 1}.")
        indices = [number for number, view in enumerate(self.views) if view.group == index]
        own = [_in_own_group(self.views[number]) for number in indices]
        sparse = None if self.sparse is None else self.sparse.of_group(index, indices)
        if index == 0:
            fused = None if self.fused is None else self.fused.of_views(indices)
            return replace(self, views=own, sparse=sparse, fused=fused)
        return replace(self, views=own, sparse=sparse, fused=None, world="first camera", metric=False)

    def equals(self, other: Scene) -> bool:
        """Whether everything but the timings is the same, arrays to the last bit."""
        return _same(self, other)

    def point_cloud(
        self,
        *,
        percentile: float = 20.0,
        min_confidence: float | None = None,
        include_low_confidence: bool = False,
        max_points: int | None = None,
        seed: int = 0,
        views: Sequence[int] | None = None,
    ) -> PointCloud:
        """The valid points of the views in use, by view and then row by row; the `fused` ones where there are any.

        Args:
            percentile, min_confidence, include_low_confidence, max_points, seed: as in `ExportOptions`. The draw is
                without replacement and repeatable.
            views: indices of the views to take; all by default. Their status still counts.
        """
        wanted = range(len(self.views)) if views is None else views
        statuses = ("used", "low_confidence") if include_low_confidence else ("used",)
        chosen = [index for index in wanted if self.views[index].status in statuses]
        return gather_points(
            self.views,
            chosen,
            fused=self.fused,
            percentile=percentile,
            min_confidence=min_confidence,
            max_points=max_points,
            seed=seed,
        )

    def save(self, folder: str | Path, *, overwrite: bool = False) -> list[Path]:
        """Write `scene.json` (words and numbers; last), `scene.safetensors` (arrays) and `timings.json` into `folder`.

        Raises:
            ExportError: the files are there and `overwrite` is False; or they are not manyview's; or a number is not
                finite (`SceneView.masked` takes such pixels out); or the disk refuses.
        """
        from manyview.scene_files import SCENE_JSON, write_scene

        folder = Path(folder)
        with staged(folder, overwrite=overwrite, last=SCENE_JSON) as staging:
            written = write_scene(self, staging)
        return [folder / path.relative_to(staging) for path in written]

    @classmethod
    def load(cls, folder: str | Path) -> Scene:
        """Read what `save` wrote; the result `equals` the scene that was saved.

        Raises:
            InputError: a file is missing, damaged, or of a newer version of the format.
        """
        from manyview.scene_files import read_scene

        return read_scene(Path(folder))

    def write(
        self,
        folder: str | Path,
        formats: Sequence[str] = (),
        *,
        options: ExportOptions | None = None,
        overwrite: bool = False,
        drawn: Path | None = None,
    ) -> list[Path]:
        """`save` and `export` at once; with `overwrite`, nothing of an earlier result of ours is left in `folder`.

        Only files that our manifest lists are deleted, and none that this scene's photos are. A folder of photos that
        were `drawn` for this scene comes along under its own name, and the scene that is written refers to these.

        Raises:
            ExportError: as `save` and `export`; then the folder is as it was.
        """
        from manyview.scene_files import SCENE_JSON, write_scene
        from manyview.scene_photos import bring_photos

        exporters = [_known_exporters()[name].load() for name in check_formats(formats)]
        folder = Path(folder)
        photos = [Path(view.source) for view in self.views if view.source is not None]
        with staged(folder, overwrite=overwrite, last=SCENE_JSON, whole=overwrite, keep=photos) as staging:
            said, shown = bring_photos(self, drawn, staging, folder)
            written = [*sorted(path for path in staging.rglob("*") if path.is_file()), *write_scene(said, staging)]
            linked = shown.group(0)
            written = [p for export in exporters for p in export(linked, staging, options or ExportOptions())] + written
        return [folder / path.relative_to(staging) for path in dict.fromkeys(written)]

    def export(
        self,
        folder: str | Path,
        formats: Sequence[str],
        *,
        options: ExportOptions | None = None,
        overwrite: bool = False,
    ) -> list[Path]:
        """Write this scene in the given formats ("ply", "glb", "colmap", "nerfstudio", "depth", "npz", "tum",
        "splat-ready").

        All formats are written, or none. Returns the paths in `folder`. The scene is not changed. Views of other
        groups, which share no frame with the scene's world, are left out: export `scene.group(1)` for those.

        Raises:
            ExportError: an unknown format, a number that is not finite, or, as in `save`, files in the way.
        """
        from manyview.scene_files import verify

        exporters = [_known_exporters()[name].load() for name in check_formats(formats)]
        verify(self)
        folder = Path(folder)
        with staged(folder, overwrite=overwrite) as staging:
            linked = self.group(0)
            written = [path for export in exporters for path in export(linked, staging, options or ExportOptions())]
        return [folder / path.relative_to(staging) for path in dict.fromkeys(written)]


def result_names(formats: Sequence[str]) -> list[str]:
    """Names of the files and folders that `Scene.write` with these formats may make in its folder."""
    from manyview.scene_files import SCENE_ARRAYS, SCENE_JSON, TIMINGS

    modules = [import_module(_known_exporters()[name].module) for name in check_formats(formats)]
    made = [name for module in modules for name in getattr(module, "WRITES", ())]  # others' formats need not say
    return list(dict.fromkeys([SCENE_JSON, SCENE_ARRAYS, TIMINGS, *made]))


def check_formats(names: Sequence[str]) -> list[str]:
    """The names without repetition, after a check that there is an exporter for each.

    "splat-ready" comes last: it extends files that "colmap" and "nerfstudio" write, too.

    Raises:
        ExportError: an unknown format.
    """
    known = _known_exporters()
    for name in names:
        if name not in known:
            raise ExportError(f"there is no format {name!r}", hint=f"Known formats: {', '.join(sorted(known))}.")
    return sorted(dict.fromkeys(names), key=lambda name: name == "splat-ready")


def _in_own_group(view: SceneView) -> SceneView:
    if view.group == 0:
        return view
    return replace(
        view, group=0, camera=view.group_camera, group_camera=None, status="used", status_reason=view.status_reason
    )


def _known_exporters() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=EXPORTERS)}


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, (Scene, SceneView, Camera, Provenance, PointCloud, SparsePoints)) and type(a) is type(b):
        return all(_same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a) if f.compare)
    return a == b
