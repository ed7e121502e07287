"""Sub-commands about exact cameras: refine, report, import."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from manyview.cli.shared import (
    AsJson,
    CopyImages,
    Densify,
    Device,
    Formats,
    LowConfidence,
    Masks,
    ModelName,
    Output,
    Overwrite,
    Percentile,
    app,
    export_options,
    intrinsics_of,
    listed,
    one_of,
)
from manyview.errors import InputError

CAMERA_MODELS = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "OPENCV")
_ABOUT_ADJUSTMENT = ("camera_model", "focal", "intrinsics", "fix_intrinsics", "known_cameras", "loss", "threads")


@app.command()
def refine(
    context: typer.Context,
    scene: Annotated[Path, typer.Argument(help="A folder that `reconstruct` or `import` wrote.")],
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--output", "-o", help="Folder for the results; by default `refined` in the scene's."),
    ] = None,
    bundle_adjust: Annotated[
        bool, typer.Option("--bundle-adjust", help="Match the photos and find exact cameras; refit the depth.")
    ] = False,
    densify: Densify = False,
    dense_size: Annotated[int, typer.Option(min=64, help="Longer side in pixels of the dense depth maps.")] = 640,
    camera_model: Annotated[
        str, typer.Option(help="SIMPLE_PINHOLE, PINHOLE, SIMPLE_RADIAL or OPENCV (the last two have distortion).")
    ] = "SIMPLE_PINHOLE",
    focal: Annotated[
        str, typer.Option(help="shared (one camera), per_view (mixed cameras), or auto: as the matches say.")
    ] = "auto",
    intrinsics: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Known camera of all photos, kept: FX,FY,CX,CY in pixels of the upright originals."),
    ] = None,
    fix_intrinsics: Annotated[bool, typer.Option("--fix-intrinsics", help="Keep the scene's focal lengths.")] = False,
    known_cameras: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The scene's cameras are known: prior (stay near their places) or constant (exact)."),
    ] = None,
    loss: Annotated[str, typer.Option(help="Of bundle adjustment: soft_l1, huber, cauchy or none.")] = "soft_l1",
    threads: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Of features and matching; results do not depend on it. Default: all cores."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of every random draw.")] = 0,
    distance: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help='Metric scale by two image points: "PHOTO X Y PHOTO X Y METRES", original pixels.'),
    ] = None,
    baseline: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help='Metric scale by the distance between two cameras: "PHOTO PHOTO METRES".'),
    ] = None,
    camera_height: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Metric scale by the cameras' height above the ground, metres."),
    ] = None,
    gps: Annotated[bool, typer.Option("--gps", help="Metres, up and north by GPS positions in the photos.")] = False,
    up: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Turn upright: ground, cameras (never tilted sideways), or X,Y,Z of the present world."),
    ] = None,
    device: Device = "auto",
    export: Formats = "ply,glb",
    percentile: Percentile = 20.0,
    include_low_confidence: LowConfidence = False,
    copy_images: CopyImages = False,
    masks: Masks = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Make a scene's cameras exact, its depth dense, its world metric and upright."""
    from manyview.app.console import print_json, progress_bars, show_summary, summarise
    from manyview.app.refinement import Work, carry_out
    from manyview.files import refuse_results, scratch_in
    from manyview.methods.devices import choose_device
    from manyview.refine.densify import DensifyOptions
    from manyview.refine.options import RefineOptions
    from manyview.refine.world_wish import WorldWish
    from manyview.scene import Scene, check_formats, result_names
    from manyview.scene_photos import UNDISTORTED

    _refuse_without(context, "bundle_adjust", _ABOUT_ADJUSTMENT)
    _refuse_without(context, "densify", ("dense_size",))
    folder = output or scene / "refined"
    formats = check_formats(listed(export))
    exported = export_options(percentile, include_low_confidence, copy_images, masks, formats)
    options = RefineOptions(
        camera_model=one_of("camera-model", camera_model, CAMERA_MODELS),
        intrinsics=one_of("focal", focal, ("auto", "shared", "per_view")),
        refine_intrinsics=not fix_intrinsics,
        known_cameras=one_of("known-cameras", known_cameras, ("prior", "constant", None)) or "prior",
        loss=one_of("loss", loss, ("soft_l1", "huber", "cauchy", "none")),
        threads=threads,
        seed=seed,
    )
    work = Work(
        bundle_adjust=options if bundle_adjust else None,
        densify=DensifyOptions(long_side=dense_size) if densify else None,
        world=WorldWish(distance=distance, baseline=baseline, camera_height=camera_height, gps=gps, up=up, seed=seed),
        K=intrinsics_of(intrinsics),
        cameras_are_known=known_cameras is not None,
        device=choose_device(device),
    ).checked()
    refuse_results(folder, overwrite=overwrite, names=[*result_names(formats), *work.names])
    start = time.perf_counter()
    with progress_bars(quiet=as_json) as progress, scratch_in(folder) as scratch:
        drawn = scratch / UNDISTORTED
        result = carry_out(Scene.load(scene), work, drawn=drawn, progress=progress)
        progress(0, 1, "writing files")
        files = result.scene.write(folder, formats, options=exported, overwrite=overwrite, drawn=drawn)
        files += result.save_report(folder, overwrite=overwrite)
    seconds = time.perf_counter() - start
    figures = summarise(result.scene, exported, files, seconds, cameras=result.words, before=result.before)
    print_json(figures) if as_json else show_summary(figures)


def _refuse_without(context: typer.Context, needed: str, names: tuple[str, ...]) -> None:
    """Raise InputError if options are given that do nothing without another."""
    if context.params[needed]:
        return
    given = [name for name in names if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"]
    if given:
        others, option = ", ".join(map(_option, given)), _option(needed)
        raise InputError(f"{others}: of no use without {option}", hint=f"Add {option}, or leave out.")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


@app.command()
def report(
    inputs: Annotated[list[str], typer.Argument(help="A folder, a video, or photos.")],
    output: Output,
    match: Annotated[
        bool, typer.Option("--match/--no-match", help="Match the photos to see which hang together.")
    ] = True,
    model: ModelName = "manyview-small",
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Examine photos before anything is made of them: blur, exposure, duplicates, which hang together."""
    from manyview.app.console import print_json, progress_bars, show_figures, show_files, show_lines
    from manyview.app.refinement import report_on_photos
    from manyview.app.report_page import REPORT_JSON, REPORT_PAGE
    from manyview.files import refuse_inputs_inside, refuse_results

    refuse_inputs_inside(output, inputs)
    refuse_results(output, overwrite=overwrite, names=[REPORT_JSON, REPORT_PAGE])
    chosen: Any = inputs[0] if len(inputs) == 1 else list(inputs)
    with progress_bars(quiet=as_json) as progress:
        figures, files = report_on_photos(
            chosen, output, model=model if match else None, device=device, overwrite=overwrite, progress=progress
        )
    if as_json:
        print_json(figures)
    else:
        show_lines("finding", figures.pop("findings"))
        show_figures(figures)
    show_files(files)


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="A COLMAP project or model, a transforms.json, or its folder.")],
    output: Output,
    photos: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder that the file's names of photos start from."),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="A pairwise model that adds depth; `none` for cameras alone.")
    ] = "manyview-small-pairs",
    metric: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option("--metric/--not-metric", help="Whether lengths are metres."),
    ] = None,
    export: Formats = "ply,glb",
    device: Device = "auto",
    percentile: Percentile = 20.0,
    copy_images: CopyImages = False,
    masks: Masks = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Take over cameras from COLMAP or a transforms.json, and add depth by a network."""
    from manyview.app.console import print_json, progress_bars, show_summary, summarise
    from manyview.files import refuse_results, scratch_in
    from manyview.methods.importing import import_scene
    from manyview.scene import check_formats, result_names
    from manyview.scene_photos import UNDISTORTED

    formats = check_formats(listed(export))
    exported = export_options(percentile, False, copy_images, masks, formats)
    refuse_results(output, overwrite=overwrite, names=[*result_names(formats), UNDISTORTED])
    start = time.perf_counter()
    with progress_bars(quiet=as_json) as progress, scratch_in(output) as scratch:
        scene = import_scene(
            source,
            photos=photos,
            model=None if model == "none" else model,
            undistorted=scratch / UNDISTORTED,
            metric=metric,
            device=device,
            progress=progress,
        )
        files = scene.write(output, formats, options=exported, overwrite=overwrite, drawn=scratch / UNDISTORTED)
    seconds = time.perf_counter() - start
    figures = summarise(scene, exported, files, seconds, cameras=f"given by {source}")
    print_json(figures) if as_json else show_summary(figures)
