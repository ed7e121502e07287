"""DUSt3R: views -> `Scene`. What is run in which order; the arithmetic is in `networks` and `alignment`.

encoder          every picture once
pairs            all of them, or each picture with those most like it
decoders, heads  a pair at a time: both pointmaps in the first camera's frame
links            pairs that show the same place; pictures that none links get frames of their own
alignment        cameras, focal lengths and depth that agree best with all pairs at once
world            = the first camera, or that of the cameras that were given
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np
import torch

from manyview.alignment import Alignment, KnownCameras, PairMaps, align_pairs
from manyview.alignment.align import merged
from manyview.alignment.cleaning import clean_confidence
from manyview.alignment.groups import groups
from manyview.alignment.initial import scale_is_known
from manyview.alignment.links import link_quality
from manyview.alignment.pairs import make_pairs
from manyview.alignment.retrieval import pairs_by_similarity, similarity
from manyview.alignment.two_views import align_two_views
from manyview.errors import InputError
from manyview.geometry import Camera, default_focal, estimate_focal, intrinsics, picture_centre, points_from_depth
from manyview.images import View, Views, to_network_tensor
from manyview.methods.pair_inference import PairInference, encode_pictures, infer_pairs
from manyview.methods.placing import Job, Known, Placed, first_cameras_are_worlds
from manyview.networks.dust3r import Dust3R
from manyview.scene import SceneView, ViewStatus

MOST_VIEWS_IN_ALL_PAIRS = 16  # with more, "auto" takes each picture's most similar ones: the work grows linearly


@dataclass(frozen=True, kw_only=True)
class Dust3ROptions:
    """Which pairs are run, and how they are aligned.

    Attributes:
        pairs: "auto": all of up to 16 pictures, else those that look alike; or a graph by name
            (`alignment.pairs.make_pairs`): "complete", "swin-5", "logwin-3", "oneref-0", ...
        alignment: "fast", or "compatible": the published optimisation, step by step; of two pictures, without
            `iterations`, the published shortcut.
        iterations: of "compatible"; 300 as published if None.
        clean: lower the confidence of points that another, surer view sees through.
    """

    pairs: str = "auto"
    alignment: Literal["fast", "compatible"] = "fast"
    iterations: int | None = None
    clean: bool = True

    def __post_init__(self) -> None:
        if self.alignment not in ("fast", "compatible"):
            raise InputError(f"unknown alignment {self.alignment!r}", hint='Choose "fast" or "compatible".')
        if self.iterations is not None and self.alignment == "fast":
            raise InputError(
                "iterations are given to the fast alignment, which chooses its own steps",
                hint='They belong to the alignment "compatible".',
            )


def reconstruct_views(network: Dust3R, job: Job, options: Dust3ROptions) -> Placed:
    """The whole way from pictures to placed views.

    Raises:
        InputError: no such graph of pairs, or what is known of the cameras makes no sense.
        DeviceError: memory does not suffice.
    """
    if options.pairs != "auto":
        make_pairs(len(job.views), options.pairs)  # a name that is not known is said before the network runs
    with job.clock.measure("network"):
        inferred = run(network, job, options.pairs)
    with inferred, job.clock.measure("alignment"):
        quality = link_quality(inferred.pairs)
        aligned = align(inferred.pairs, quality, job, options)
        found = judged(inferred.pairs.edges, quality, aligned, job.info.least_link)
        confidence = clean_confidence(aligned) if options.clean else aligned.confidence
        pairs_run = len(quality)
    given = any(job.known.camera_of(view) is not None for view in aligned.groups[0])
    own_frames = aligned.groups[1:] if given else aligned.groups
    placed = [
        _scene_view(view, aligned, index, confidence[index], *found[index], known=job.known)
        for index, view in enumerate(job.views)
    ]
    return Placed(
        views=first_cameras_are_worlds(placed, own_frames),
        world="given" if given else "first camera",
        dtype=inferred.dtype,
        changes=inferred.changes,
        warnings=(
            *apart(job.views, aligned.groups),
            *_known_elsewhere(job, aligned.groups),
            *_not_finite(inferred.masked_pixels),
        ),
        settings={**asdict(options), "pairs_run": pairs_run, "objective": round(aligned.objective, 6)},
    )


# ------------------------------------------------------------------ pairs
def run(network: Dust3R, job: Job, graph: str) -> PairInference:
    """Encode every picture, choose the pairs, and run them."""
    images = to_network_tensor(job.views)
    where = {"device": job.device, "dtype": job.dtype, "progress": job.progress}
    encoded = encode_pictures(network, images, **where)
    sequence = all(view.timestamp is not None for view in job.views)
    edges = choose_pairs(len(images), graph, encoded.tokens, sequence=sequence)
    return infer_pairs(network, images, edges, encoded=encoded, valid=[view.valid for view in job.views], **where)


def choose_pairs(views: int, graph: str, tokens: Sequence[torch.Tensor], *, sequence: bool = False) -> np.ndarray:
    """(E, 2) ordered pairs, each in both directions; one picture is paired with itself."""
    if views == 1:
        return np.zeros((1, 2), dtype=np.int64)
    if graph != "auto":
        return make_pairs(views, graph)
    if views <= MOST_VIEWS_IN_ALL_PAIRS:
        return make_pairs(views, "complete")
    return pairs_by_similarity(similarity(tokens), sequence=sequence, symmetric=True)


def predict_pairs(
    network: Dust3R, pictures: Sequence[np.ndarray], edges: np.ndarray, *, device: torch.device, dtype: torch.dtype
) -> PairMaps:
    """What the network says of pairs of pictures (H, W, 3) uint8 of its own size."""
    images = [
        torch.from_numpy(picture).permute(2, 0, 1)[None].float().div(255).sub(0.5).div(0.5) for picture in pictures
    ]
    return infer_pairs(network, images, np.asarray(edges), device=device, dtype=dtype, store="memory").pairs


# ------------------------------------------------------------------ alignment
def align(pairs: PairMaps, quality: np.ndarray, job: Job, options: Dust3ROptions) -> Alignment:
    """Cameras and depth of all pictures; those that no good pair links are aligned by themselves.

    Args:
        pairs: what the network says.
        quality: (E,) of the pairs. Below the model's limit, a pair is left out; in compatible mode, none is.
    """
    known = known_in_network_pixels(job.views, job.known)
    if options.alignment == "fast" and pairs.views > 1:
        good = pairs.rows(np.flatnonzero(quality >= job.info.least_link).tolist())
    else:
        good = pairs
    parts = groups(good.edges, pairs.views)
    results = [
        align_one(pairs, part[0], known.part(part))
        if len(part) == 1
        else align_many(good.part(part), known.part(part), job, options)
        for part in parts
    ]
    if len(parts) == 1:
        return results[0]
    scale = usual_scale([r for r, part in zip(results, parts, strict=True) if scale_is_known(known.part(part))])
    results = [r if len(part) > 1 else _scaled(r, scale) for r, part in zip(results, parts, strict=True)]
    return replace(merged(good, parts, results), groups=in_one_frame(parts, known))


def usual_scale(results: Sequence[Alignment]) -> float:
    """World units to a unit of a pair's pointmaps: the geometric mean over aligned pairs; 1 without any."""
    matrices = np.concatenate([np.zeros((0, 4, 4)), *(result.world_from_pair for result in results)])
    return float(np.exp(np.log(np.linalg.det(matrices[:, :3, :3])).mean() / 3)) if len(matrices) else 1.0


def _scaled(alone: Alignment, scale: float) -> Alignment:
    return replace(alone, depth=[depth * np.float32(scale) for depth in alone.depth])


def in_one_frame(parts: Sequence[Sequence[int]], known: KnownCameras) -> tuple[tuple[int, ...], ...]:
    """Groups of views: parts whose known cameras tell frame and scale count as one, the first; the others follow.

    Where there are such parts, single pictures with a known camera join them; the scale of their depth is a guess.
    """
    placed = [scale_is_known(known.part(part)) for part in parts]
    if any(placed):
        alone = [len(part) == 1 and known.camera_of(part[0]) is not None for part in parts]
        placed = [is_placed or is_alone for is_placed, is_alone in zip(placed, alone, strict=True)]
    together = sorted(view for part, is_placed in zip(parts, placed, strict=True) if is_placed for view in part)
    others = [tuple(part) for part, is_placed in zip(parts, placed, strict=True) if not is_placed]
    return (tuple(together), *others) if together else tuple(others)


def align_many(pairs: PairMaps, known: KnownCameras, job: Job, options: Dust3ROptions) -> Alignment:
    """Cameras and depth of two or more pictures that are linked."""
    nothing_known = known.world_from_camera is None and all(known.focal_of(view) is None for view in range(pairs.views))
    if options.alignment == "compatible" and options.iterations is None and pairs.views == 2 and nothing_known:
        return align_two_views(pairs)
    return align_pairs(
        pairs.edges,
        pairs.points,
        pairs.confidence,
        mode=options.alignment,
        seed=job.seed,
        known=known,
        iterations=options.iterations,
        progress=job.progress,
        device=job.device,
    )


def align_one(pairs: PairMaps, view: int, known: KnownCameras) -> Alignment:
    """A picture by itself: depth is that of its own pointmap in its surest pair, the camera is the identity.

    Args:
        pairs: of all pictures.
        view: which one; it comes first in one pair at least, and be it with itself.
        known: of this one.
    """
    own = [row for row, (first, _) in enumerate(pairs.edges.tolist()) if first == view]
    row = max(own, key=lambda row: float(pairs.confidence[row][0].mean()))
    points, confidence = pairs.points[row][0].numpy(), pairs.confidence[row][0].numpy()
    centre = known.principal_point_of(0, pairs.sizes[view])
    usable = np.where(confidence[..., None] > 0, points, np.nan)
    focal = known.focal_of(0) or estimate_focal(usable, confidence, principal_point=centre)
    contradicts = focal <= 0  # every focal length there is: the camera is a guess
    focal = default_focal(*pairs.sizes[view]) if contradicts else focal
    camera = known.camera_of(0)
    return Alignment(
        world_from_camera=np.eye(4)[None] if camera is None else camera[None],
        K=intrinsics(focal, centre)[None],
        depth=[points[..., 2]],
        confidence=[confidence],
        world_from_pair=np.zeros((0, 4, 4)),
        objective=0.0,
        seconds=0.0,
        mode="fast",
        steps=0,
        groups=((0,),),
        cameras_not_found=(0,) if contradicts else (),
    )


def known_in_network_pixels(views: Views, known: Known) -> KnownCameras:
    """What the user knows, carried from pixels of the originals to those of the network's pictures.

    Principal points that are not known are at the true centre of the original, half a pixel before (W / 2, H / 2).
    """
    centres, focals = [], []
    for index, view in enumerate(views):
        network_from_original = np.linalg.inv(view.original_from_network)
        if known.K is None:
            centre = network_from_original @ [*picture_centre(*view.original_size), 1.0]
            focals.append(None)
        else:
            K = network_from_original @ known.K[index]
            centre = K[:, 2]
            focals.append(float(K[0, 0] + K[1, 1]) / 2)
        centres.append((float(centre[0]), float(centre[1])))
    return KnownCameras(world_from_camera=known.world_from_camera, focal=focals, principal_point=centres)


# ------------------------------------------------------------------ one view
def judged(
    edges: np.ndarray, quality: np.ndarray, aligned: Alignment, least_link: float
) -> list[tuple[ViewStatus, str, int]]:
    """Status, reason and group of each view."""
    group_of = {view: number for number, members in enumerate(aligned.groups) for view in members}
    best = np.zeros(len(group_of))
    np.maximum.at(best, edges.reshape(-1), quality.repeat(2))
    results: list[tuple[ViewStatus, str, int]] = []
    for view, group in sorted(group_of.items()):
        if group:
            alone = len(aligned.groups[group]) == 1
            reason = "no pair links it to another photo" if alone else f"nothing links group {group} to the others"
            results.append(("other_group", reason, group))
        elif view in aligned.cameras_not_found:
            results.append(("camera_not_found", "no camera agrees with the points of this view", 0))
        elif len(group_of) > 1 and best[view] < least_link:
            reason = f"its best pair reaches a confidence of {best[view]:.2f}, expected {least_link}; depth is a guess"
            results.append(("low_confidence", reason, 0))
        else:
            results.append(("used", "", 0))
    return results


def _scene_view(
    view: View,
    aligned: Alignment,
    index: int,
    confidence: np.ndarray,
    status: ViewStatus,
    reason: str,
    group: int,
    *,
    known: Known,
) -> SceneView:
    height, width = view.original_size
    original = view.original_from_network @ aligned.K[index] if known.K is None else known.K[index]
    if known.K is None:  # square pixels of the original, exactly: the network's may be a little off by rounding
        original = intrinsics(float(np.sqrt(original[0, 0] * original[1, 1])), picture_centre(height, width))
    camera = Camera(K=original, world_from_camera=aligned.world_from_camera[index], width=width, height=height)
    # Where every pair's numbers were not finite, confidence is 0 and depth made up.
    depth = np.where(aligned.confidence[index] > 0, aligned.depth[index], np.nan)
    network_K = np.linalg.inv(view.original_from_network) @ original
    return SceneView.masked(
        depth=depth,
        points=points_from_depth(depth, network_K, camera.world_from_camera),
        confidence=confidence,
        valid=view.valid,
        name=view.name,
        source=view.source,
        original_size=view.original_size,
        original_from_network=view.original_from_network,
        image=view.pixels,
        camera=camera if group == 0 and status != "camera_not_found" else None,
        status=status,
        status_reason=reason,
        upright_in_file=view.upright_in_file,
        timestamp=view.timestamp,
        group=group,
        group_camera=camera if group else None,
    )


# ------------------------------------------------------------------ groups
def apart(views: Views, groups: Sequence[Sequence[int]]) -> tuple[str, ...]:
    """A warning where the photos fall into groups that nothing links."""
    if len(groups) == 1:
        return ()
    named = [f"group {n}: {', '.join(views[view].name for view in members)}" for n, members in enumerate(groups)]
    return (f"the photos fall into {len(groups)} groups without a link; each has its own frame. {'; '.join(named)}",)


def _known_elsewhere(job: Job, groups: Sequence[Sequence[int]]) -> tuple[str, ...]:
    """A warning where known cameras are of no use, since too few of their group are known to place it."""
    lost = [view for members in groups[1:] for view in members if job.known.camera_of(view) is not None]
    if not lost:
        return ()
    names = ", ".join(job.views[view].name for view in lost)
    return (f"the known cameras of {names} could not be used: nothing links these photos to group 0",)


def _not_finite(pixels: int) -> tuple[str, ...]:
    return (f"{pixels} pixels of all pairs were not finite and took no part",) if pixels else ()
