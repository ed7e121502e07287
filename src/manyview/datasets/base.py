"""What all data sets share: a scene's frames in, a sample of one size out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from manyview.datasets.choose import distinct, jittered, window_about
from manyview.datasets.crop import Crop, crop_to_cover, principal_point_is_central
from manyview.datasets.frames import Frame
from manyview.datasets.jitter import jitter_colours
from manyview.errors import InputError
from manyview.geometry.depth import points_from_depth
from manyview.geometry.posed_views import PosedViews

Split = Literal["train", "test"]

ATTEMPTS = 5  # scenes that are tried, the one asked for and those after it, as the published CO3D loader does
PUBLISHED_WIDTH = 512  # crop jitters are published for pictures of this width, and are scaled with the size asked for
PORTRAIT, LANDSCAPE = 1.1, 0.9  # height / width beyond which a picture has an orientation


class UnusableSceneError(InputError):
    """Nothing can be drawn from this scene, in a way that the published loaders pass over; another one is tried."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is drawn at random in a sample besides its views.

    Attributes:
        colour_jitter: brightness, contrast, saturation and hue of each view, in the sets that are published with it.
        crop_jitter: a tighter crop of each view, by the number of pixels that the set is published with.
        follow_orientation: portrait scenes get the transposed size. It goes by the first view, since a sample has one
            size; the published loaders go by each view and store portrait ones transposed. A scene that is nearly
            square gets either. Off: samples always have the size asked for.
    """

    colour_jitter: bool = True
    crop_jitter: bool = True
    follow_orientation: bool = False


class PosedDataset(ABC):
    """Scenes of real or rendered pictures with cameras and depth.

    Attributes:
        layout: what its folder holds, in words for error messages.
        splits: that it has.
        crop_jitter: pixels at a width of 512.
        colour_jitter: whether it is published with it.
        crops_about_principal_point: and refuses pictures whose principal point is near the border; else about the
            middle of the picture.
    """

    layout: ClassVar[str]
    splits: ClassVar[tuple[Split, ...]] = ("train", "test")
    crop_jitter: ClassVar[int] = 16
    colour_jitter: ClassVar[bool] = True
    crops_about_principal_point: ClassVar[bool] = True

    def __init__(self, folder: Path, *, split: Split, augmentation: Augmentation) -> None:
        self.folder = folder
        self.split: Split = split
        self.augmentation = augmentation

    @abstractmethod
    def __len__(self) -> int:
        """Number of scenes: sequences of CO3D, instances of five renders of Habitat."""

    @abstractmethod
    def name(self, index: int) -> str:
        """What scene `index` is called in its folder."""

    @property
    def weights(self) -> np.ndarray:
        """(len,) float64: how often, relative to each other, the published recipe draws the scenes."""
        return np.ones(len(self))

    def sample(self, index: int, views: int, size: tuple[int, int], seed: int) -> PosedViews:
        """Draw views of a scene. The same arguments give the same sample.

        Where the scene asked for has nothing usable, by the published rules of the set, the next ones are tried.

        Args:
            index: of the scene, 0 to len - 1.
            views: N, at least 1; pictures are repeated where the scene has fewer.
            size: (height, width) in pixels; see also `Augmentation.follow_orientation`.
            seed: not negative.

        Returns:
            One scene (B = 1) of N views, in the units and world frame of the data set.

        Raises:
            InputError: an argument is out of range, a file is missing or damaged (it is named), or no scene is usable.
        """
        self._check(index, views, size, seed)
        reasons = []
        for attempt in range(min(ATTEMPTS, len(self))):
            generator = np.random.default_rng([seed, index, attempt])
            scene = (index + attempt) % len(self)
            try:
                frames = self._frames(scene, views, generator)
            except UnusableSceneError as error:
                reasons.append(f"{self.name(scene)}: {error}")
            else:
                return self._posed_views(frames, size, generator)
        raise InputError(f"no usable views in {self.folder}: {'; '.join(reasons)}")

    @abstractmethod
    def _frames(self, index: int, views: int, generator: np.random.Generator) -> list[Frame]:
        """Exactly `views` frames of a scene, drawn as published; with an UnusableSceneError the next one is tried."""

    def _check(self, index: int, views: int, size: tuple[int, int], seed: int) -> None:
        if not 0 <= index < len(self):
            raise InputError(f"no scene {index}: {self.folder} has {len(self)}, counted from 0")
        if views < 1 or min(size) < 1 or seed < 0:
            raise InputError(
                f"expected views and size of at least 1 and a seed of at least 0, got {views}, {size} and {seed}"
            )

    def _posed_views(self, frames: list[Frame], size: tuple[int, int], generator: np.random.Generator) -> PosedViews:
        import torch

        if self.augmentation.follow_orientation:
            size = oriented_size(frames[0].size, size, generator)
        pictures, depths, points, intrinsics = [], [], [], []
        for frame in frames:
            crop = self._crop(frame, size, generator)
            image, depth, K = crop.picture(frame.image), crop.nearest(frame.depth), crop.intrinsics(frame.K)
            if self.colour_jitter and self.augmentation.colour_jitter:
                image = jitter_colours(image, generator)
            pictures.append(np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / np.float32(255))
            depths.append(depth)
            points.append(np.nan_to_num(points_from_depth(depth, K, frame.world_from_camera)))
            intrinsics.append(K)
        depth = _batch_of_one(depths)
        return PosedViews(
            images=_batch_of_one(pictures),
            depth=depth,
            points=_batch_of_one(points),
            valid=torch.gt(depth, 0),
            K=_batch_of_one(intrinsics),
            world_from_camera=_batch_of_one([frame.world_from_camera for frame in frames]),
        )

    def _crop(self, frame: Frame, size: tuple[int, int], generator: np.random.Generator) -> Crop:
        if not self.crops_about_principal_point:
            centre = (frame.size[1] / 2, frame.size[0] / 2)
        elif principal_point_is_central(frame.K, frame.size):
            centre = (float(frame.K[0, 2]), float(frame.K[1, 2]))
        else:
            raise InputError(
                f"{frame.path}: the principal point ({frame.K[0, 2]:.1f}, {frame.K[1, 2]:.1f}) is within a fifth of "
                f"the border of {frame.size[1]} x {frame.size[0]} pixels, so that little is left after a crop about it"
            )
        extra = 0
        if self.augmentation.crop_jitter:
            extra = int(generator.integers(max(1, round(self.crop_jitter * max(size) / PUBLISHED_WIDTH))))
        return crop_to_cover(frame.size, centre, size, extra)


class WindowedDataset(PosedDataset):
    """Scenes that are ordered in time: views are drawn in a window around a random frame.

    Attributes:
        window: width of the window, in views asked for.
        shift: each drawn frame is moved by up to so many places.
    """

    window: ClassVar[int]
    shift: ClassVar[int] = 0

    @abstractmethod
    def count(self, index: int) -> int:
        """Number of frames of a scene."""

    @abstractmethod
    def _frame(self, index: int, place: int) -> Frame:
        """The frame at a place, counted from 0, in a scene."""

    def _frames(self, index: int, views: int, generator: np.random.Generator) -> list[Frame]:
        count = self.count(index)
        first, last = window_about(int(generator.integers(count)), self.window * views, count)
        places = [first + place for place in distinct(last - first, views, generator)]
        return [self._frame(index, place) for place in jittered(places, self.shift, count, generator)]


def oriented_size(picture: tuple[int, int], size: tuple[int, int], generator: np.random.Generator) -> tuple[int, int]:
    """`size`, transposed for portrait pictures and, at random, for those that are nearly square; (height, width)."""
    short, long = sorted(size)
    aspect = picture[0] / picture[1]
    if short == long:
        return size
    if LANDSCAPE < aspect < PORTRAIT:
        return (long, short) if generator.integers(2) else (short, long)
    return (long, short) if aspect >= PORTRAIT else (short, long)


def _batch_of_one(arrays: list[np.ndarray]):
    import torch

    return torch.from_numpy(np.stack(arrays).astype(np.float32))[None]
