"""Photos and video in: decoded, upright, at the network's size, with the exact way back to original pixels."""

from manyview.images.load import Progress, load_views
from manyview.images.resize import Fit, FitRules, NetworkFrame, network_frame
from manyview.images.sources import ImageInput, Inputs
from manyview.images.tensors import to_network_tensor
from manyview.images.views import Skipped, View, Views

__all__ = [
    "Fit",
    "FitRules",
    "ImageInput",
    "Inputs",
    "NetworkFrame",
    "Progress",
    "Skipped",
    "View",
    "Views",
    "load_views",
    "network_frame",
    "to_network_tensor",
]
