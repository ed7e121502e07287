"""The refined scene, put together from models, frames and what the network says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from manyview.geometry import Camera, Similarity, points_from_depth
from manyview.refine.frames import Frames
from manyview.refine.lenses import distortion_of
from manyview.refine.options import RefineOptions
from manyview.refine.outcomes import judge_views, pair_outcomes, straightened, view_outcome
from manyview.refine.overlap import camera_in_group
from manyview.refine.parts import Findings
from manyview.refine.result import Refined, ViewOutcome
from manyview.refine.settling import Mapped, cameras_of, sim3d
from manyview.refine.sparse import observation_errors, sparse_points
from manyview.scene import Provenance, Scene, SceneView, ViewStatus, World

EXACT_IDENTITY = 1e-9  # what the first camera may differ from the identity by rounding


def refined_scene(
    scene: Scene,
    findings: Findings,
    frames: Frames,
    options: RefineOptions,
    seconds: Mapping[str, float],
    *,
    world: World,
) -> Refined:
    """The scene with refined cameras.

    Args:
        scene: as the network has it.
        findings, frames: of the refinement; the models are moved into the frames of their worlds.
        options, seconds: for the record.
        world: what the frames were laid upon.
    """
    for model, placed in zip(findings.models, frames.from_model, strict=True):
        model.model.transform(sim3d(placed))
        model.model.update_point_3d_errors()
    model_of = {view: number for number, model in enumerate(findings.models) for view in model.views}
    cameras = [cameras_of(model.model, len(scene.views)) for model in findings.models]
    views, outcomes = [], []
    for index, view in enumerate(scene.views):
        number = model_of.get(index)
        camera = None if number is None else cameras[number][index]
        status, reason = _judged(index, number, view, findings, frames)
        made = _view(view, camera, frames.from_network[index], frames.world_of[index], status, reason)
        views.append(made)
        outcomes.append(view_outcome(index, view, made, number, reason, findings, frames))
    if not frames.is_given:
        views = _exact_first(views)
    return _result(scene, views, outcomes, findings, frames, options, seconds, world=world)


def kept_network(scene: Scene, findings: Findings, options: RefineOptions, seconds: Mapping[str, float]) -> Refined:
    """The network's scene as it is, and why."""
    before = judge_views(scene.views, findings.pairs)
    reasons = {view: "the network's cameras explain the matches better" for m in findings.models for view in m.views}
    reasons |= findings.reasons
    outcomes = [
        view_outcome(index, view, view, None, reasons.get(index, ""), findings, None)
        for index, view in enumerate(scene.views)
    ]
    return Refined(
        scene=replace(scene, warnings=_joined(scene, findings.warnings)),
        points=sparse_points([], findings.features),
        verified=findings.pairs,
        views=tuple(outcomes),
        pairs=pair_outcomes(scene.views, scene.views, findings),
        kept="network",
        before=before,
        after=before,
        reprojection_error=float("nan"),
        models=(),
        how=(),
        distortion={},
        options=options,
        seconds=dict(seconds),
        warnings=findings.warnings,
        kept_because=findings.kept_because or "nothing could be refined",
    )


def _result(
    scene: Scene,
    views: Sequence[SceneView],
    outcomes: Sequence[ViewOutcome],
    findings: Findings,
    frames: Frames,
    options: RefineOptions,
    seconds: Mapping[str, float],
    *,
    world: World,
) -> Refined:
    errors = [observation_errors(model.model, view) for model in findings.models for view in model.views]
    warnings = (*findings.warnings, *_about_frames(scene.views, findings, frames))
    if world != "first camera" and not frames.is_given:
        warnings = (*warnings, "no given camera could be placed: the world is the first view's camera")
    groups = [frames.world_of[model.views[0]] for model in findings.models]
    identity = Similarity.identity()
    placed = [(model.model, identity, group) for model, group in zip(findings.models, groups, strict=True)]
    made = replace(
        scene,
        views=tuple(views),
        world=world if frames.is_given else "first camera",
        provenance=_provenance(scene, findings, options, seconds),
        warnings=_joined(scene, warnings),
    )
    return Refined(
        scene=made,
        points=sparse_points(placed, findings.features),
        verified=findings.pairs,
        views=tuple(outcomes),
        pairs=pair_outcomes(scene.views, views, findings),
        kept="refined",
        before=judge_views(scene.views, findings.pairs),
        after=judge_views(views, straightened(findings.pairs, [model.model for model in findings.models])),
        reprojection_error=float(np.concatenate(errors).mean()),
        models=tuple(model.model for model in findings.models),
        how=tuple(model.how for model in findings.models),
        distortion=_distortion(findings.models),
        options=options,
        seconds=dict(seconds),
        warnings=warnings,
    )


# ------------------------------------------------------------------ views
def _judged(
    index: int, number: int | None, view: SceneView, findings: Findings, frames: Frames
) -> tuple[ViewStatus, str]:
    world = frames.world_of[index]
    if number is None:
        reason = findings.reasons.get(index, "its matches do not determine a camera")
        if camera_in_group(view) is None:
            return ("other_group" if world else "camera_not_found"), f"{view.status_reason}; {reason}".lstrip("; ")
        reason = f"the camera is the network's, moved into the refined frame: {reason}"
        return ("other_group" if world else "low_confidence"), reason
    if world:
        return "other_group", f"nothing links group {world} to the others"
    if number not in frames.sure:
        others = len(findings.models[number].views) - 1
        return "low_confidence", (
            f"refined with {others} other photos that no match links to the main group; "
            "where they stand to each other is the network's estimate"
        )
    return "used", ""


def _view(
    view: SceneView, camera: Camera | None, placed: Similarity, world: int, status: ViewStatus, reason: str
) -> SceneView:
    """A view with its refined camera, or with the network's in the refined frame; depth as it was up to the scale."""
    depth = (view.depth * placed.scale).astype(np.float32)
    old = camera_in_group(view)
    if camera is not None:
        K = np.linalg.inv(view.original_from_network) @ camera.K
        points = points_from_depth(depth, K, camera.world_from_camera)
    else:
        points = placed.apply(view.points)
        camera = None if old is None else replace(old, world_from_camera=placed.apply_to_camera(old.world_from_camera))
    return replace(
        view,
        depth=np.where(view.valid, depth, np.float32(0)),
        points=np.where(view.valid[..., None], points, 0).astype(np.float32),
        camera=camera if world == 0 else None,
        group=world,
        group_camera=camera if world else None,
        status=status,
        status_reason=reason,
    )


def _exact_first(views: Sequence[SceneView]) -> list[SceneView]:
    """The camera that is its world's frame is exactly the identity, not nearly."""
    made, seen = list(views), set()
    for index, view in enumerate(views):
        camera = camera_in_group(view)
        is_first = view.group not in seen
        seen.add(view.group)
        if is_first and camera is not None and np.abs(camera.world_from_camera - np.eye(4)).max() < EXACT_IDENTITY:
            exact = replace(camera, world_from_camera=np.eye(4))
            made[index] = replace(view, group_camera=exact) if view.group else replace(view, camera=exact)
    return made


# ------------------------------------------------------------------ words
def _joined(scene: Scene, warnings: Sequence[str]) -> tuple[str, ...]:
    """The scene's warnings and others; what an earlier refinement has said is not repeated."""
    return tuple(dict.fromkeys([*scene.warnings, *warnings]))


def _about_frames(views: Sequence[SceneView], findings: Findings, frames: Frames) -> list[str]:
    """A sentence on views that are not registered, and one on models that only the network links."""
    mapped = {view for model in findings.models for view in model.views}
    left = [view.name for index, view in enumerate(views) if index not in mapped]
    told = []
    if left:
        told.append(f"{len(left)} of {len(views)} photos could not be registered: {', '.join(left)}")
    loose = len(findings.models) - len(frames.sure)
    if loose:
        words = "1 group of photos is" if loose == 1 else f"{loose} groups of photos are"
        told.append(f"{words} linked to the others by the network's estimate alone")
    return told


def _provenance(scene: Scene, findings: Findings, options: RefineOptions, seconds: Mapping[str, float]) -> Provenance:
    import pycolmap

    told = ", ".join(
        f"{len(model.views)} views {'from the network' if model.how == 'start' else 'photo by photo'}"
        for model in findings.models
    )
    return replace(
        scene.provenance,
        settings={**scene.provenance.settings, **{f"refine {name}": value for name, value in vars(options).items()}},
        versions={**scene.provenance.versions, "pycolmap": pycolmap.__version__},
        seconds={**scene.provenance.seconds, **{f"refine {name}": value for name, value in seconds.items()}},
        changes=(*scene.provenance.changes, f"cameras refined by bundle adjustment ({told})"),
    )


def _distortion(models: Sequence[Mapped]) -> dict[int, np.ndarray]:
    found = {}
    for mapped in models:
        for view in mapped.views:
            coefficients = distortion_of(mapped.model.camera(mapped.model.image(view + 1).camera_id))
            if len(coefficients):
                found[view] = coefficients
    return found
