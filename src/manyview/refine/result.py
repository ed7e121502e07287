"""What a refinement found, beside the scene."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from manyview.refine.agreement import Agreement
from manyview.refine.matching import VerifiedPair
from manyview.refine.options import RefineOptions
from manyview.refine.settling import How
from manyview.refine.sparse import SparsePoints
from manyview.scene import Scene

if TYPE_CHECKING:
    import pycolmap

Registration = Literal["matches", "guess", "no"]


@dataclass(frozen=True, kw_only=True)
class ViewOutcome:
    """What became of one view.

    Attributes:
        view, name: which one.
        registered: "matches": by what its photo shows; "guess": only with the network's camera as a guess; "no": its
            camera is the network's, moved into the refined frame, or none.
        reason: in words, where it is not registered, or not with the others.
        model: number of the model that has it; None without.
        matches, linked: verified matches with all others, and with how many other views.
        observations: sparse points that it sees.
        reprojection_error: mean over these, original pixels; nan without.
        turned: degrees, and
        moved: distance in units of the refined scene, that the camera is from where the similarity between the frames
            takes the network's; nan where the network had none or it is not registered.
        note: what the features were found in, if not in the photo itself.
    """

    view: int
    name: str
    registered: Registration
    reason: str
    model: int | None
    matches: int
    linked: int
    observations: int
    reprojection_error: float
    turned: float
    moved: float
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class PairOutcome:
    """What is known of two views that were matched with success.

    Attributes:
        first, second: indices of the views.
        shared: 0..1, what one sees of the other in the network's eyes (the lower of both directions).
        candidates, matches: before and after geometric verification.
        before, after: share of the matches, 0..1, that the network's and the resulting cameras explain; nan where one
            of both has no camera.
    """

    first: int
    second: int
    shared: float
    candidates: int
    matches: int
    before: float
    after: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Refined:
    """A refined scene, and how it came about.

    Attributes:
        scene: cameras are pinholes in original pixels. Its first view's camera is the world, or the given cameras say
            what is. Depth is the network's up to one scale.
        points: sparse points with their observations; none where the network's cameras are kept.
        verified: the verified matches.
        views: one a view.
        pairs: those with verified matches.
        kept: "refined", or "network" where that explains the matches better or nothing could be refined.
        kept_because: why it is the network's, in words; empty where it is not.
        before, after: how the network's cameras, and those of the scene, explain the verified matches.
        reprojection_error: mean over all observations, original pixels; nan without.
        models: COLMAP's, each in the frame of its group; view i is image i + 1, lenses have their distortion. The
            first is the largest.
        how: what each model started from: "start" is the network's (or given) cameras, "incremental" single photos.
        distortion: coefficients of each registered view in COLMAP's order, where the camera model has any.
        options: as asked for.
        seconds: of each part of the work.
        warnings: what the user should know; the scene has them too.
    """

    scene: Scene
    points: SparsePoints
    verified: tuple[VerifiedPair, ...]
    views: tuple[ViewOutcome, ...]
    pairs: tuple[PairOutcome, ...]
    kept: Literal["refined", "network"]
    before: Agreement
    after: Agreement
    reprojection_error: float
    models: tuple[pycolmap.Reconstruction, ...]
    how: tuple[How, ...]
    distortion: Mapping[int, np.ndarray]
    options: RefineOptions
    seconds: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    kept_because: str = ""

    @property
    def reconstruction(self) -> pycolmap.Reconstruction | None:
        """The largest model; None where nothing was refined."""
        return self.models[0] if self.models else None

    @property
    def registered(self) -> tuple[int, ...]:
        """The views whose cameras were found from their photos."""
        return tuple(outcome.view for outcome in self.views if outcome.registered != "no")
