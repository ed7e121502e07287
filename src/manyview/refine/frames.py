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
        root: for each world the model that the others are laid upon; None without any.
    """

    world_of: Sequence[int]
    from_model: Sequence[Similarity]
    from_network: Sequence[Similarity]
    root: Sequence[int | None]


def lay_out(
    views: Sequence[SceneView],
    models: Sequence[Mapped],
    features: Sequence[Features],
    shared: np.ndarray,
    given: GivenCameras,
) -> Frames:
    """Find frames for everything.

    Args:
        views: as the network has them.
        models: of some of the views; no view is in two.
        features: of the views.
        shared: (N, N) of `overlap.overlap`: a view that is not registered is placed by those it shares most with.
        given: a world with a camera that is given is the given one; any other is its first view's camera, and lengths
            are such that the network's depth stays as it is.
    """
    layout = _Layout(views, models, features)
    worlds = layout.worlds()
    world_of = [0] * len(views)
    from_model, from_network = [Similarity.identity()] * len(models), [Similarity.identity()] * len(views)
    roots: list[int | None] = []
    for world, members in enumerate(worlds):
        own = [number for number, model in enumerate(models) if model.views[0] in members]
        groups = sorted({views[view].group for view in members if layout.counts_for_group(view)})
        of_model, of_group = layout.spread(own, groups)
        final = _final_frame(layout, members, own, of_model, of_group, given)
        roots.append(own[0] if own else None)
        for number in own:
            from_model[number] = final.compose(of_model[number])
        for view in members:
            world_of[view] = world
            from_network[view] = final.compose(layout.place(view, of_model, of_group, shared[view]))
    return Frames(world_of=world_of, from_model=from_model, from_network=from_network, root=roots)


class _Layout:
    """Fits between the frames of models and of the network's groups. The root of a world is its first model's frame."""

    def __init__(self, views: Sequence[SceneView], models: Sequence[Mapped], features: Sequence[Features]):
        self.views = views
        self.models = models
        self.network = [camera_in_group(view) for view in views]
        self.refined = [cameras_of(model.model, len(views)) for model in models]
        self.model_of = {view: number for number, model in enumerate(models) for view in model.views}
        self.depths = {
            view: _depth_pairs(views[view], models[number], features, view) for view, number in self.model_of.items()
        }

    def counts_for_group(self, view: int) -> bool:
        """Whether a view belongs to its group's frame: not if all that is known of it is where a model has it."""
        return self.network[view] is not None or view not in self.model_of

    def worlds(self) -> list[tuple[int, ...]]:
        """Views that share a frame: by a model, or by the network's word. That of the first model comes first."""
        edges = [(model.views[0], view) for model in self.models for view in model.views]
        first_of: dict[int, int] = {}
        for index, view in enumerate(self.views):
            if self.counts_for_group(index):
                edges.append((first_of.setdefault(view.group, index), index))
        main = self.models[0].views[0] if self.models else 0
        return sorted(connected(edges, len(self.views)), key=lambda members: main not in members)

    def spread(
        self, models: Sequence[int], groups: Sequence[int]
    ) -> tuple[dict[int, Similarity], dict[int, Similarity]]:
        """The maps to the root's frame from all of the models and of the network's groups.

        Without a model, the only group's frame is the root.
        """
        of_model = {number: Similarity.identity() for number in models[:1]}
        of_group = {} if models else {group: Similarity.identity() for group in groups}
        while len(of_model) < len(models) or len(of_group) < len(groups):
            for group in set(groups) - set(of_group):
                members = self._shared(group, of_model)
                if members:
                    of_group[group] = self._fit_group(members, of_model)
            for number in sorted(set(models) - set(of_model)):
                linked = [group for group in of_group if self._shared(group, [number])]
                if linked:  # by the group of most views in common
                    group = max(linked, key=lambda group: len(self._shared(group, [number])))
                    own = self._fit_group(self._shared(group, [number]), {number: Similarity.identity()})
                    of_model[number] = of_group[group].compose(own.inverse())
        return of_model, of_group

    def place(
        self,
        view: int,
        of_model: Mapping[int, Similarity],
        of_group: Mapping[int, Similarity],
        shared: np.ndarray,
    ) -> Similarity:
        """From the network's frame to the root's, for one view: if it is not registered, by those it sees most of."""
        group = self.views[view].group
        root = dict(list(of_model.items())[:1])
        members = self._shared(group, root) if view not in self.model_of else []
        if members:
            return self._fit_group(members, root, np.array([FAR_WEIGHT + shared[other] for other in members]))
        if group in of_group:
            return of_group[group]
        scale = self.depth_ratio([view], of_model) or 1.0
        return Similarity(scale=scale, rotation=np.eye(3), translation=np.zeros(3))

    def depth_ratio(self, views: Sequence[int], of_model: Mapping[int, Similarity]) -> float | None:
        """Refined depth, in the root's units, to one unit of the network's depth; None where too little tells it."""
        ratios = []
        for view in views:
            network, refined = self.depths[view]
            ratios.append(of_model[self.model_of[view]].scale * refined / network)
        if sum(len(own) for own in ratios) < LEAST_DEPTHS:
            return None
        return float(np.median([np.median(own) for own in ratios if len(own)]))

    def _shared(self, group: int, models: Iterable[int]) -> list[int]:
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
        seen = [self.views[view].depth[self.views[view].valid] for view in members]
        reach = [float(np.median(depth)) for depth in seen if len(depth)]
        return fit_cameras(
            source,
            target,
            scale=ratio or ratio_of_spreads(source, target) or 1.0,
            reach=float(np.median(reach)) if reach else 1.0,
            keep_scale=ratio is not None,
            weights=weights,
        )


def _final_frame(
    layout: _Layout,
    members: Sequence[int],
    own: Sequence[int],
    of_model: Mapping[int, Similarity],
    of_group: Mapping[int, Similarity],
    given: GivenCameras,
) -> Similarity:
    """From the root's frame to that of the world."""
    if not own:
        return Similarity.identity()
    first = members[0]
    group = of_group.get(layout.views[first].group) or next(iter(of_group.values()), None)
    ratio = (
        group.scale
        if group is not None
        else layout.depth_ratio(layout.models[own[0]].views, {own[0]: Similarity.identity()})
    )
    scale = 1 / (ratio or 1.0)
    known = [view for view in layout.models[own[0]].views if given.camera_of(view) is not None]
    if known:
        return _onto_given(layout, own[0], known, given, scale)
    refined, network = layout.refined[own[0]][first], layout.network[first]
    if refined is not None:
        camera = refined.world_from_camera
    elif network is not None and group is not None:
        camera = group.apply_to_camera(network.world_from_camera)
    else:  # the first view's camera is not known: the world stays about where the network has it
        return Similarity.identity() if group is None else group.inverse()
    back = invert_rigid(camera)
    return Similarity(scale=scale, rotation=back[:3, :3], translation=scale * back[:3, 3])


def _onto_given(layout: _Layout, root: int, known: Sequence[int], given: GivenCameras, scale: float) -> Similarity:
    """From the root's frame to that of the given cameras; `scale` counts where those are all in one place."""
    source = np.array([_matrix(layout.refined[root][view]) for view in known])
    target = np.array([given.camera_of(view) for view in known])
    depths = np.concatenate([layout.depths[view][1] for view in known])
    reach = float(np.median(depths)) if len(depths) else 1.0
    return fit_cameras(source, target, scale=ratio_of_spreads(source, target) or scale, reach=reach)


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


def _matrix(camera: Camera | None) -> np.ndarray:
    assert camera is not None
    return camera.world_from_camera
