"""One frame for what was refined and what was not: models, and the network's own frames, laid upon each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from manyview.geometry import Camera, Similarity, invert_rigid, transform_pixels
from manyview.refine.features import Features
from manyview.refine.matching import connected
from manyview.refine.options import GivenCameras
from manyview.refine.overlap import camera_in_group
from manyview.refine.settling import Mapped, cameras_of
from manyview.refine.unregistered import fit_cameras, ratio_of_spreads
from manyview.scene import SceneView

LEAST_DEPTHS = 20  # sparse points at which the network's depth tells the scale
FAR_WEIGHT = 0.05  # of a view that shares nothing with one that is to be placed, beside one that shares all


@dataclass(frozen=True, kw_only=True, eq=False)
class Frames:
    """Where models and the network's frames lie.

    Attributes:
        world_of: (N,) for each view the number of its world; views of different worlds share no frame. 0 is the one
            with the largest model.
        from_model: for each model its place in its world.
        from_network: for each view the map from the network's frame (that of its group) to its world.
        sure: models of which more than the network's word says where they are in their world: in each the first, upon
            which the others are laid, and those that given cameras place beside it.
        is_given: whether the first world is that of the given cameras.
    """

    world_of: Sequence[int]
    from_model: Sequence[Similarity]
    from_network: Sequence[Similarity]
    sure: frozenset[int]
    is_given: bool


def lay_out(
    views: Sequence[SceneView],
    models: Sequence[Mapped],
    features: Sequence[Features],
    shared: np.ndarray,
    given: GivenCameras,
    *,
    keep_lengths: bool = False,
) -> Frames:
    """Find frames for everything.

    Args:
        views: as the network has them.
        models: of some of the views; no view is in two.
        features: of the views.
        shared: (N, N) of `overlap.overlap`: a view that is not registered is placed by those it shares most with.
        given: the first world is that of the given cameras, if it has any of them; any other is its first view's
            camera, and lengths are such that the network's depth stays as it is.
        keep_lengths: distances between the network's cameras are what is known of lengths, rather than its depth.
    """
    layout = _Layout(views, models, features, shared, given, keep_lengths=keep_lengths)
    world_of = [0] * len(views)
    from_model, from_network = [Similarity.identity()] * len(models), [Similarity.identity()] * len(views)
    sure: set[int] = set()
    is_given = False
    for world, members in enumerate(layout.worlds()):
        spread = layout.spread(members)
        known = [] if world else layout.known(members, spread)
        final = layout.onto_given(spread, known) if known else layout.onto_first(members[0], spread)
        sure |= set(spread.root)
        if set(spread.root) & set(layout.given_from_model):
            sure |= set(spread.of_model) & set(layout.given_from_model)
        for number, placed in spread.of_model.items():
            from_model[number] = final.compose(placed)
        for view in members:
            world_of[view] = world
            from_network[view] = final.compose(layout.place(view, spread))
        is_given |= bool(known)
    return Frames(
        world_of=world_of, from_model=from_model, from_network=from_network, sure=frozenset(sure), is_given=is_given
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Spread:
    """Maps to the frame of a world's root, its first model (or the only group's), from all models and groups of it."""

    of_model: Mapping[int, Similarity]
    of_group: Mapping[int, Similarity]

    @property
    def root(self) -> Mapping[int, Similarity]:
        return dict(list(self.of_model.items())[:1])


class _Layout:
    """Fits between the frames of models, of the network's groups, and of the given cameras."""

    def __init__(
        self,
        views: Sequence[SceneView],
        models: Sequence[Mapped],
        features: Sequence[Features],
        shared: np.ndarray,
        given: GivenCameras,
        *,
        keep_lengths: bool,
    ):
        self.views = views
        self.models = models
        self.shared = shared
        self.given = given
        self.keep_lengths = keep_lengths
        self.network = [camera_in_group(view) for view in views]
        self.refined = [cameras_of(model.model, len(views)) for model in models]
        self.model_of = {view: number for number, model in enumerate(models) for view in model.views}
        self.depths = {
            view: _depth_pairs(views[view], models[number], features, view) for view, number in self.model_of.items()
        }
        self.given_from_model = self._given_from_models()

    def counts_for_group(self, view: int) -> bool:
        """Whether a view belongs to its group's frame: not if all that is known of it is where a model has it."""
        return self.network[view] is not None or view not in self.model_of

    def worlds(self) -> list[tuple[int, ...]]:
        """Views that share a frame: by a model, by the network's word, or by given cameras; the first model's first."""
        edges = [(model.views[0], view) for model in self.models for view in model.views]
        laid = [self.models[number].views[0] for number in self.given_from_model]
        edges += [(laid[0], view) for view in laid[1:]]
        first_of: dict[int, int] = {}
        for index, view in enumerate(self.views):
            if self.counts_for_group(index):
                edges.append((first_of.setdefault(view.group, index), index))
        main = self.models[0].views[0] if self.models else 0
        return sorted(connected(edges, len(self.views)), key=lambda members: main not in members)

    def spread(self, members: Sequence[int]) -> _Spread:
        """The maps to the root's frame from all models and groups of a world."""
        models = [number for number, model in enumerate(self.models) if model.views[0] in members]
        groups = sorted({self.views[view].group for view in members if self.counts_for_group(view)})
        of_model = {number: Similarity.identity() for number in models[:1]}
        of_group = {} if models else {group: Similarity.identity() for group in groups}
        while len(of_model) < len(models) or len(of_group) < len(groups):
            of_model |= self._by_given(of_model, models)
            for group in groups:
                own = self._shared_with(group, of_model)
                if group not in of_group and own:
                    of_group[group] = self._fit_group(own, of_model)
            for number in models:
                linked = [group for group in of_group if self._shared_with(group, [number])]
                if number not in of_model and linked:  # by the group of most views in common
                    group = max(linked, key=lambda group: len(self._shared_with(group, [number])))
                    own = self._fit_group(self._shared_with(group, [number]), {number: Similarity.identity()})
                    of_model[number] = of_group[group].compose(own.inverse())
        return _Spread(of_model=of_model, of_group=of_group)

    def place(self, view: int, spread: _Spread) -> Similarity:
        """From the network's frame to the root's, for one view: if it is not registered, by those it sees most of."""
        group = self.views[view].group
        members = self._shared_with(group, spread.root) if view not in self.model_of else []
        if members:
            weights = np.array([FAR_WEIGHT + self.shared[view, other] for other in members])
            return self._fit_group(members, spread.root, weights)
        if group in spread.of_group:
            return spread.of_group[group]
        scale = self.depth_ratio([view], spread.of_model) or 1.0
        return Similarity(scale=scale, rotation=np.eye(3), translation=np.zeros(3))

    def camera(self, view: int, spread: _Spread) -> np.ndarray | None:
        """(4, 4) world_from_camera of a view in the root's frame: the refined one, else the network's."""
        if view in self.model_of:
            number = self.model_of[view]
            return spread.of_model[number].apply_to_camera(_matrix(self.refined[number][view]))
        if (network := self.network[view]) is not None:
            return self.place(view, spread).apply_to_camera(network.world_from_camera)
        return None

    def known(self, members: Sequence[int], spread: _Spread) -> list[int]:
        """The views by which a world is laid upon the given cameras: those of its root, if it has any."""
        known = [
            view for view in members if self.given.camera_of(view) is not None and self.camera(view, spread) is not None
        ]
        return [view for view in known if self.model_of.get(view) in spread.root] or known

    def onto_given(self, spread: _Spread, known: Sequence[int]) -> Similarity:
        """From the root's frame to that of the given cameras; depth tells the scale where those are in one place."""
        root = next(iter(spread.of_model))
        if root in self.given_from_model:
            return self.given_from_model[root]
        cameras = [_known(self.camera(view, spread)) for view in known]
        return self._fit_given(known, cameras, self._scale(known[0], spread))

    def onto_first(self, first: int, spread: _Spread) -> Similarity:
        """From the root's frame to that of a view's camera, in lengths in which the network's depth stays as it is."""
        if not spread.of_model:
            return Similarity.identity()
        camera = self.camera(first, spread)
        if camera is None:  # the world stays about where the network has it
            group = spread.of_group.get(self.views[first].group)
            return Similarity.identity() if group is None else group.inverse()
        back, scale = invert_rigid(camera), self._scale(first, spread)
        return Similarity(scale=scale, rotation=back[:3, :3], translation=scale * back[:3, 3])

    def _scale(self, view: int, spread: _Spread) -> float:
        """The network's units to one of the root's."""
        group = spread.of_group.get(self.views[view].group) or next(iter(spread.of_group.values()), None)
        if group is not None:
            return 1 / group.scale
        root = next(iter(spread.of_model))
        return 1 / (self.depth_ratio(self.models[root].views, spread.root) or 1.0)

    def _given_from_models(self) -> dict[int, Similarity]:
        """From the frame of each model to that of the given cameras, where two or more tell the scale."""
        found = {}
        for number, model in enumerate(self.models):
            known = [view for view in model.views if self.given.camera_of(view) is not None]
            cameras = [_matrix(self.refined[number][view]) for view in known]
            if len(known) > 1:
                targets = np.array([self.given.camera_of(view) for view in known])
                if ratio_of_spreads(np.array(cameras), targets) is not None:
                    found[number] = self._fit_given(known, cameras, 1.0)
        return found

    def _fit_given(self, known: Sequence[int], cameras: Sequence[np.ndarray], scale: float) -> Similarity:
        source, target = np.array(cameras), np.array([self.given.camera_of(view) for view in known])
        depths = np.concatenate([np.zeros(0), *(self.depths[view][1] for view in known if view in self.depths)])
        reach = float(np.median(depths)) if len(depths) else 1.0
        return fit_cameras(source, target, scale=ratio_of_spreads(source, target) or scale, reach=reach)

    def _by_given(self, of_model: Mapping[int, Similarity], models: Sequence[int]) -> dict[int, Similarity]:
        """Other models that given cameras lay upon one that has a place."""
        laid = [number for number in of_model if number in self.given_from_model]
        if not laid:
            return {}
        root_from_given = of_model[laid[0]].compose(self.given_from_model[laid[0]].inverse())
        left = [number for number in models if number in self.given_from_model and number not in of_model]
        return {number: root_from_given.compose(self.given_from_model[number]) for number in left}

    def depth_ratio(self, views: Sequence[int], of_model: Mapping[int, Similarity]) -> float | None:
        """Refined depth, in the root's units, to one unit of the network's depth; None where too little tells it."""
        ratios = []
        for view in views:
            network, refined = self.depths[view]
            ratios.append(of_model[self.model_of[view]].scale * refined / network)
        if sum(len(own) for own in ratios) < LEAST_DEPTHS:
            return None
        return float(np.median([np.median(own) for own in ratios if len(own)]))

    def _shared_with(self, group: int, models: Iterable[int]) -> list[int]:
        """Views of a group that the network has a camera of, and one of the models too."""
        return [
            view
            for number in models
            for view in self.models[number].views
            if self.views[view].group == group and self.network[view] is not None
        ]

    def _fit_group(
        self, members: Sequence[int], of_model: Mapping[int, Similarity], weights: np.ndarray | None = None
    ) -> Similarity:
        """From the network's frame to the root's, by views that have cameras in both."""
        source = np.array([_matrix(self.network[view]) for view in members])
        target = np.array(
            [
                of_model[self.model_of[view]].apply_to_camera(_matrix(self.refined[self.model_of[view]][view]))
                for view in members
            ]
        )
        ratio = self.depth_ratio(members, of_model)
        apart = ratio_of_spreads(source, target)
        if self.keep_lengths and apart is not None:
            ratio = apart
        seen = [self.views[view].depth[self.views[view].valid] for view in members]
        reach = [float(np.median(depth)) for depth in seen if len(depth)]
        return fit_cameras(
            source,
            target,
            scale=ratio or apart or 1.0,
            reach=float(np.median(reach)) if reach else 1.0,
            keep_scale=ratio is not None,
            weights=weights,
        )


def _depth_pairs(
    view: SceneView, model: Mapped, features: Sequence[Features], index: int
) -> tuple[np.ndarray, np.ndarray]:
    """(M,) the network's depth and (M,) that of the sparse points, where both are known."""
    image = model.model.image(index + 1)
    rows = list(image.get_observation_point2D_idxs())
    pixels = features[index].pixels[rows].reshape(-1, 2)
    points = np.array([model.model.point3D(image.points2D[row].point3D_id).xyz for row in rows]).reshape(-1, 3)
    motion = image.cam_from_world().matrix()
    depth = points @ motion[2, :3] + motion[2, 3]
    in_network = np.rint(transform_pixels(np.linalg.inv(view.original_from_network), pixels)).astype(int)
    height, width = view.size
    inside = ((in_network >= 0) & (in_network < [width, height])).all(axis=1) & (depth > 0)
    x, y = in_network[inside].T
    known = view.valid[y, x]
    return view.depth[y, x][known].astype(np.float64), depth[inside][known]


def _known(camera: np.ndarray | None) -> np.ndarray:
    assert camera is not None
    return camera


def _matrix(camera: Camera | None) -> np.ndarray:
    assert camera is not None
    return camera.world_from_camera
