"""Depth maps in the floating point formats of the data sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from manyview.datasets.frames import reading

_FLOATS = {"grayf32le": np.dtype("<f4"), "grayf16le": np.dtype("<f2")}


def read_exr(path: Path) -> np.ndarray:
    """(H, W) float32 of an OpenEXR file with the single channel Y, of 16 or 32 bits.

    FFmpeg reads it, which comes with the video decoder: OpenCV's wheels have no OpenEXR in some versions.

    Raises:
        InputError: it is missing, damaged, or has other channels.
    """
    import av

    with reading(path):
        decoder = av.CodecContext.create("exr", "r")
        # Decoding only the bytes, without a container, keeps FFmpeg from taking digits in the name for a sequence.
        frames = [*decoder.decode(av.Packet(path.read_bytes())), *decoder.decode(None)]
        frame = frames[0]
        if frame.format.name not in _FLOATS:
            raise ValueError(f"got channels {frame.format.name}, expected the single channel Y")
        plane, dtype = frame.planes[0], _FLOATS[frame.format.name]
        rows = np.frombuffer(bytes(plane), dtype=dtype).reshape(-1, plane.line_size // dtype.itemsize)
        return rows[: frame.height, : frame.width].astype(np.float32)


def read_pfm(path: Path) -> np.ndarray:
    """(H, W) float32 of a grey PFM: a text header, then rows from the bottom up.

    Raises:
        InputError: it is missing, damaged, or has colours.
    """
    with reading(path), path.open("rb") as stream:
        kind = stream.readline().strip()
        if kind != b"Pf":
            raise ValueError(f"it starts with {kind[:8]!r}, expected b'Pf'")
        width, height = (int(word) for word in stream.readline().split())
        byte_order = "<" if float(stream.readline()) < 0 else ">"
        values = np.frombuffer(stream.read(), dtype=f"{byte_order}f4")
        return values.reshape(height, width)[::-1].astype(np.float32)
