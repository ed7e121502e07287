"""What the sub-commands share: the app, options that several have, and how texts become values."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from manyview.errors import ExportError, InputError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Photos or a video in; cameras, depth and dense coloured 3D points out.",
)

Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")]
ModelName = Annotated[str, typer.Option("--model", "-m", help="Packaged name, file, folder or hub id (owner/name).")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Formats = Annotated[str, typer.Option("--export", help="Of ply,glb,colmap,nerfstudio,splat-ready,depth,npz,tum.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace results that are already there (only ours).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the summary as JSON on stdout.")]
Percentile = Annotated[float, typer.Option(help="Leave out this share of each view's least confident points.")]
LowConfidence = Annotated[bool, typer.Option("--include-low-confidence", help="Export doubtful views, too.")]
CopyImages = Annotated[bool, typer.Option("--copy-images", help="Copy photos into the exports instead of linking.")]
Densify = Annotated[bool, typer.Option("--densify", help="Search dense depth in the photos, around the network's.")]
Masks = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="For splat-ready: folder of masks named as the photos (PNG), white where to train."),
]
MASKED = "splat-ready"  # the format that has masks
Verbose = Annotated[bool, typer.Option("--verbose", help="Show tracebacks.")]


def export_options(
    percentile: float,
    include_low_confidence: bool,
    copy_images: bool,
    masks: Path | None = None,
    formats: Sequence[str] = (),
) -> Any:
    """`ExportOptions` of the command's.

    Raises:
        InputError: masks are given, and no format that has them.
    """
    from manyview.scene import ExportOptions

    if masks is not None and MASKED not in formats:
        raise InputError(f"--masks is of no use without the format {MASKED}", hint=f"Add {MASKED} to the formats.")
    return ExportOptions(
        percentile=percentile,
        include_low_confidence=include_low_confidence,
        link_images="copy" if copy_images else "link",
        masks=masks,
    )


def refuse_files(outputs: list[Path], *, inputs: list[Path], overwrite: bool) -> None:
    """Raise ExportError before the work if a file is in the way; the photos themselves are never replaced."""
    photos = [path.resolve() for path in inputs]
    for path in outputs:
        if path.resolve() in photos:
            raise ExportError(f"the output {path} is one of the photos", hint="Choose another name.")
        if path.exists() and not overwrite:
            raise ExportError(f"{path} exists", hint="Choose another name, or add --overwrite to replace it.")


def listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def intrinsics_of(text: str | None) -> Any:
    """ "FX,FY,CX,CY" -> (3, 3) nested list."""
    if text is None:
        return None
    try:
        fx, fy, cx, cy = (float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--intrinsics {text} is not FX,FY,CX,CY", hint="Four numbers in pixels.") from error
    return [[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]


def size_of(text: str) -> tuple[int, int]:
    """ "WIDTHxHEIGHT" -> (height, width)."""
    try:
        width, height = (int(part) for part in text.lower().split("x"))
    except ValueError as error:
        raise InputError(f"--size {text} is not WIDTHxHEIGHT", hint="For example 640x480.") from error
    return height, width


def one_of(option: str, value: str | None, allowed: tuple[str | None, ...]) -> Any:
    if value not in allowed:
        known = ", ".join(str(name) for name in allowed if name)
        raise InputError(f"--{option} {value} is not known", hint=f"Choose one of {known}.")
    return value


def set_verbose(verbose: bool) -> None:
    if verbose:
        logging.getLogger("manyview").setLevel(logging.DEBUG)
