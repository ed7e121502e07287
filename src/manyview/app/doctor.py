"""What manyview can do on this machine, for `manyview doctor`."""

from __future__ import annotations

import os
import platform
from importlib import import_module
from importlib.util import find_spec

import torch

import manyview
from manyview.networks.checkpoints.find import packaged_models
from manyview.networks.layers.matmul import onednn_is_exact

OPTIONAL = {"viser": 'the viewer: pip install "manyview[app]"'}
REQUIRED = (
    "torch",
    "numpy",
    "PIL",
    "pillow_heif",
    "av",
    "cv2",
    "scipy",
    "safetensors",
    "huggingface_hub",
    "pycolmap",
    "trimesh",
)


def examine() -> dict[str, str]:
    """Facts and findings, in words."""
    facts = {
        "manyview": manyview.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": f"{os.cpu_count()} cores, {torch.get_num_threads()} threads in use; {processor_features()}",
        "float32 products": "oneDNN (probed: exact)" if onednn_is_exact(torch.float32) else "PyTorch's BLAS",
        "GPU": gpus(),
        "packaged models": ", ".join(packaged_models()) or "none",
    }
    return facts | {name: package(name) for name in REQUIRED} | {name: optional(name) for name in OPTIONAL}


def processor_features() -> str:
    """Instruction set as PyTorch uses it."""
    return f"instructions: {torch.backends.cpu.get_cpu_capability()}"


def gpus() -> str:
    """CUDA devices with their memory."""
    if not torch.cuda.is_available():
        return "none that PyTorch can use; the CPU does the work"
    properties = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return ", ".join(f"{p.name} ({p.total_memory / 2**30:.0f} GiB)" for p in properties)


def package(name: str) -> str:
    """Version of a required package, or why it cannot be imported."""
    try:
        return str(getattr(import_module(name), "__version__", "present"))
    except ImportError as error:
        return f"CANNOT BE IMPORTED: {error}"


def optional(name: str) -> str:
    """Version of an optional package, or what it would be good for."""
    return package(name) if find_spec(name) else f"not installed; for {OPTIONAL[name]}"
