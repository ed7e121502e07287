"""Photos or a video in; cameras, depth and dense coloured 3D points out.

    import manyview

    scene = manyview.reconstruct("photos/")
    scene.export("out/", formats=["ply", "glb", "colmap", "nerfstudio"])

Importing this package is cheap: what is heavy is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from manyview.errors import DeviceError, ExportError, InputError, ManyviewError, NoValidImagesError, WeightsError
    from manyview.geometry.cameras import Camera
    from manyview.images.views import View, Views
    from manyview.methods.dust3r import Dust3ROptions
    from manyview.methods.fast3r import Fast3ROptions
    from manyview.methods.localise import Localisation, MapImage, localize, map_from_colmap, map_from_scene
    from manyview.methods.match import Matches, match_pictures
    from manyview.methods.model import Model, load, reconstruct
    from manyview.networks.pointmaps import Pointmaps
    from manyview.scene import ExportOptions, PointCloud, Provenance, Scene, SceneView

__version__ = "0.1.0"

_HOMES = {
    "Camera": "geometry.cameras",
    "DeviceError": "errors",
    "Dust3ROptions": "methods.dust3r",
    "ExportError": "errors",
    "ExportOptions": "scene",
    "Fast3ROptions": "methods.fast3r",
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
    "Scene": "scene",
    "SceneView": "scene",
    "View": "images.views",
    "Views": "images.views",
    "WeightsError": "errors",
    "load": "methods.model",
    "localize": "methods.localise",
    "map_from_colmap": "methods.localise",
    "map_from_scene": "methods.localise",
    "match_pictures": "methods.match",
    "reconstruct": "methods.model",
}

__all__ = [
    "Camera",
    "DeviceError",
    "Dust3ROptions",
    "ExportError",
    "ExportOptions",
    "Fast3ROptions",
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
    "Scene",
    "SceneView",
    "View",
    "Views",
    "WeightsError",
    "load",
    "localize",
    "map_from_colmap",
    "map_from_scene",
    "match_pictures",
    "reconstruct",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'manyview' has no attribute {name!r}")
    return getattr(import_module(f"manyview.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
