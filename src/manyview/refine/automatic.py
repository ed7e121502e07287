"""Refinement as a step of a reconstruction: when it is done unasked, and in words which cameras came out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from manyview.images import Progress
from manyview.scene import Scene

if TYPE_CHECKING:
    import torch

    from manyview.refine.options import GivenCameras, Intrinsics
    from manyview.refine.refine import RefinedScene

logger = logging.getLogger(__name__)

MOST_VIEWS = 200  # with more, refinement takes long, and is done only if asked for


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is wanted after the network.

    Attributes:
        refine: "auto": exact cameras where that is quick and better; "on": however many views there are; "off".
        densify: dense depth from the photos, where the cameras are exact.
        intrinsics: as in `RefineOptions`.
    """

    refine: Literal["auto", "on", "off"] = "auto"
    densify: bool = False
    intrinsics: Intrinsics = "auto"


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """A scene, in words which cameras it has, and how they came about if refinement was tried."""

    scene: Scene
    words: str
    refined: RefinedScene | None = None


def refine_as_wished(
    scene: Scene,
    wish: Wish,
    *,
    K: np.ndarray | Sequence[Sequence[float]] | None = None,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> Outcome:
    """Refine a network's scene if that is wanted and can be done.

    Whatever goes wrong, short of running out of memory, the network's scene is returned with a warning.

    Args:
        scene: as the network has it.
        wish: what is wanted.
        K: (3, 3) known intrinsics of the camera of all photos, pixels of the upright originals of one size.
        device: of the dense search.
        progress: called as (done, total, what).

    Raises:
        InputError: the intrinsics do not fit the photos.
    """
    reason = _reason_against(scene, wish)
    if reason:
        return _unrefined(scene, wish, reason)
    from manyview.refine.lenses import intrinsics_of_photos
    from manyview.refine.options import GivenCameras

    given = None if K is None else GivenCameras(K=intrinsics_of_photos(scene.views, K))
    try:
        found = _refined(scene, wish, given, device, progress)
    except MemoryError:
        raise
    except Exception as error:
        logger.debug("refinement failed", exc_info=True)
        first_line = next(iter(str(error).strip().splitlines()), "")
        told = f"refinement failed with {type(error).__name__}{first_line and ': '}{first_line}"
        warned = f"{told}; the network's cameras and depth are kept, and nothing of them is lost"
        kept = _unrefined(scene, wish, told)
        return replace(kept, scene=replace(kept.scene, warnings=(*kept.scene.warnings, warned)))
    return Outcome(scene=found.scene, words=found.words, refined=found)


def _refined(
    scene: Scene,
    wish: Wish,
    given: GivenCameras | None,
    device: str | torch.device,
    progress: Progress | None,
) -> RefinedScene:
    from manyview.refine.densify import DensifyOptions
    from manyview.refine.options import RefineOptions
    from manyview.refine.refine import refine_scene

    return refine_scene(
        scene,
        RefineOptions(intrinsics=wish.intrinsics),
        given=given,
        densify=DensifyOptions() if wish.densify else None,
        device=device,
        progress=progress,
    )


def _unrefined(scene: Scene, wish: Wish, reason: str) -> Outcome:
    told = (f"no dense depth, which needs exact cameras: {reason}",) if wish.densify else ()
    return Outcome(scene=replace(scene, warnings=(*scene.warnings, *told)), words=f"the network's: {reason}")


def _reason_against(scene: Scene, wish: Wish) -> str:
    views = len(scene.views)
    if wish.refine == "off":
        return "refinement is off"
    if views < 2:
        return "one view cannot be compared with others"
    if wish.refine == "auto" and views > MOST_VIEWS:
        return f"with more than {MOST_VIEWS} views refinement takes long and is done if asked for (--refine on)"
    return ""
