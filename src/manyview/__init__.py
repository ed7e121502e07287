"""Photos or a video in; cameras, depth and dense coloured 3D points out.

    import manyview

    scene = manyview.reconstruct("photos/")
    scene.export("out/", formats=["ply", "glb", "colmap", "nerfstudio"])

Importing this package is cheap: what is heavy is imported when it is first used.
"""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

# pycolmap brings a libpng of its own. Where it is loaded before Pillow, Pillow takes that one, and the process is
# killed as soon as a PNG is written.
if "pycolmap" in sys.modules and "PIL._imaging" not in sys.modules:
    warnings.warn(
        "pycolmap was imported before Pillow: writing PNG files will abort the process. Import manyview (or PIL.Image) "
        "before pycolmap.",
        RuntimeWarning,
        stacklevel=2,
    )
import PIL.Image  # noqa: F401 - so that what imports pycolmap after manyview is safe

if TYPE_CHECKING:
    from manyview.errors import DeviceError, ExportError, InputError, ManyviewError, NoValidImagesError, WeightsError
    from manyview.geometry.cameras import Camera
    from manyview.images.views import View, Views
    from manyview.methods.dust3r import Dust3ROptions
    from manyview.methods.fast3r import Fast3ROptions
    from manyview.methods.importing import import_scene
    from manyview.methods.localise import Localisation, MapImage, localize, map_from_colmap, map_from_scene
    from manyview.methods.match import Matches, match_pictures
    from manyview.methods.model import Model, load, reconstruct
    from manyview.networks.pointmaps import Pointmaps
    from manyview.refine.densify import DensifyOptions
    from manyview.refine.options import GivenCameras, RefineOptions
    from manyview.refine.refine import RefinedScene, refine_scene
    from manyview.scene import ExportOptions, FusedPoints, PointCloud, Provenance, Scene, SceneView, SparsePoints

__version__ = "0.1.0"

_HOMES = {
    "Camera": "geometry.cameras",
    "DensifyOptions": "refine.densify",
    "DeviceError": "errors",
    "Dust3ROptions": "methods.dust3r",
    "ExportError": "errors",
    "ExportOptions": "scene",
    "Fast3ROptions": "methods.fast3r",
    "FusedPoints": "scene",
    "GivenCameras": "refine.options",
    "InputError": "errors",
    "Localisation": "methods.localise",
    "ManyviewError": "errors",
    "MapImage": "methods.localise",
    "Matches": "methods.match",
    "Model": "methods.model",
    "NoValidImagesError": "errors",
    "PointCloud": "scene",
    "Pointmaps": "networks.pointmaps",
    "Provenance": "scene",
    "RefineOptions": "refine.options",
    "RefinedScene": "refine.refine",
    "Scene": "scene",
    "SceneView": "scene",
    "SparsePoints": "scene",
    "View": "images.views",
    "Views": "images.views",
    "WeightsError": "errors",
    "import_scene": "methods.importing",
    "load": "methods.model",
    "localize": "methods.localise",
    "map_from_colmap": "methods.localise",
    "map_from_scene": "methods.localise",
    "match_pictures": "methods.match",
    "reconstruct": "methods.model",
    "refine_scene": "refine.refine",
}

__all__ = [
    "Camera",
    "DensifyOptions",
    "DeviceError",
    "Dust3ROptions",
    "ExportError",
    "ExportOptions",
    "Fast3ROptions",
    "FusedPoints",
    "GivenCameras",
    "InputError",
    "Localisation",
    "ManyviewError",
    "MapImage",
    "Matches",
    "Model",
    "NoValidImagesError",
    "PointCloud",
    "Pointmaps",
    "Provenance",
    "RefineOptions",
    "RefinedScene",
    "Scene",
    "SceneView",
    "SparsePoints",
    "View",
    "Views",
    "WeightsError",
    "import_scene",
    "load",
    "localize",
    "map_from_colmap",
    "map_from_scene",
    "match_pictures",
    "reconstruct",
    "refine_scene",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'manyview' has no attribute {name!r}")
    return getattr(import_module(f"manyview.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
