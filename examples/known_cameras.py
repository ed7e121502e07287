"""Known intrinsics, one camera's own numbers instead of an estimate; then single arrays of the result.

python examples/known_cameras.py photos/ FX FY CX CY
"""

import sys

import numpy as np

import manyview

fx, fy, cx, cy = map(float, sys.argv[2:6])
K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])  # pixels of the upright originals, integers at pixel centres
scene = manyview.reconstruct(sys.argv[1], intrinsics=K)
first = scene.views[0]
print("depth map", first.depth.shape, "of", first.original_size, "median", np.median(first.depth[first.valid]))
print("world from camera of the last view:", scene.world_from_camera[-1].round(3), sep="\n")
cloud = scene.point_cloud(percentile=50)
print(f"{len(cloud.points)} points in {scene.units}; {scene.frame}")
