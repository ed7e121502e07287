"""A folder of photos -> cameras and points, in ten lines.

python examples/reconstruct_folder.py photos/ out/
"""

import sys

import manyview

scene = manyview.reconstruct(sys.argv[1])
for view in scene.views:
    if view.camera is None:
        print(f"{view.name}: {view.status}, {view.status_reason}")
    else:
        print(f"{view.name}: focal {view.camera.K[0, 0]:.0f} px, centre {view.camera.centre.round(2)}")
scene.export(sys.argv[2], formats=["ply", "glb", "colmap"])
