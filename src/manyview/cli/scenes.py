"""Sub-commands from photos to scenes and what is done with these."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Optional

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
    Verbose,
    app,
    export_options,
    intrinsics_of,
    listed,
    one_of,
    refuse_files,
    set_verbose,
)


@app.command()
def reconstruct(
    inputs: Annotated[list[str], typer.Argument(help="A folder, a video, or photos.")],
    output: Output,
    model: ModelName = "manyview-small",
    export: Formats = "ply,glb",
    device: Device = "auto",
    dtype: Annotated[Optional[str], typer.Option(help="float32, bfloat16 or float16.")] = None,  # noqa: UP045
    seed: Annotated[int, typer.Option(help="Equal seeds give equal results.")] = 0,
    image_size: Annotated[Optional[int], typer.Option(help="Longer side for the network.")] = None,  # noqa: UP045
    fit: Annotated[str, typer.Option(help="crop (as published) or pad (keeps the whole content).")] = "crop",
    focal: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Fast3R and refinement: shared (one camera) or per_view (mixed cameras)."),
    ] = None,
    cameras: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Fast3R: how cameras are found: auto, pnp or similarity."),
    ] = None,
    pairs: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="DUSt3R: which pairs are run: auto, complete, swin-5, logwin-3, oneref-0, ..."),
    ] = None,
    alignment: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="DUSt3R: fast, or compatible (the published optimisation)."),
    ] = None,
    iterations: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=0, help="DUSt3R: of the compatible alignment."),
    ] = None,
    intrinsics: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Known camera of all photos: FX,FY,CX,CY in pixels of the upright originals."),
    ] = None,
    refine: Annotated[
        str, typer.Option(help="Cameras by bundle adjustment: auto (where that is better), on (also of many), or off.")
    ] = "auto",
    densify: Densify = False,
    fps: Annotated[Optional[float], typer.Option(help="Frames a second from a video.")] = None,  # noqa: UP045
    max_frames: Annotated[Optional[int], typer.Option(help="Most frames from a video.")] = None,  # noqa: UP045
    max_pixels: Annotated[Optional[int], typer.Option(help="Raise the limit for huge pictures.")] = None,  # noqa: UP045
    percentile: Percentile = 20.0,
    include_low_confidence: LowConfidence = False,
    copy_images: CopyImages = False,
    strict: Annotated[bool, typer.Option("--strict", help="An unreadable picture is an error.")] = False,
    dedup: Annotated[bool, typer.Option("--dedup", help="Drop pictures with equal content.")] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Reconstruct a scene from photos or a video."""
    from manyview.app.console import print_json, progress_bars, show_summary, summarise
    from manyview.files import refuse_inputs_inside, refuse_results
    from manyview.images.sources import find_sources
    from manyview.methods.model import load, named_options
    from manyview.refine.automatic import Wish, refine_as_wished
    from manyview.scene import check_formats, result_names

    set_verbose(verbose)
    wish = Wish(
        refine=one_of("refine", refine, ("auto", "on", "off")),
        densify=densify,
        intrinsics="auto" if focal is None else one_of("focal", focal, ("shared", "per_view")),
    )
    formats = check_formats(listed(export))
    exported = export_options(percentile, include_low_confidence, copy_images)
    refuse_inputs_inside(output, inputs)
    refuse_results(output, overwrite=overwrite, names=result_names(formats))
    start = time.perf_counter()
    chosen = inputs[0] if len(inputs) == 1 else list(inputs)
    find_sources(chosen)  # what is missing is said before gigabytes are loaded
    given = {"focal": focal, "cameras": cameras, "pairs": pairs, "alignment": alignment, "iterations": iterations}
    with progress_bars(quiet=as_json) as progress:
        progress(0, 1, "loading the model")
        loaded = load(model, device=device, dtype=one_of("dtype", dtype, ("float32", "bfloat16", "float16", None)))
        progress(1, 1, "loading the model")
        scene = loaded.reconstruct(
            chosen,
            seed=seed,
            image_size=image_size,
            fit=one_of("fit", fit, ("crop", "pad")),
            intrinsics=intrinsics_of(intrinsics),
            options=named_options(loaded.info.family, given),
            fps=fps,
            max_frames=max_frames,
            max_pixels=max_pixels,
            strict=strict,
            dedup=dedup,
            progress=progress,
        )
        refined = refine_as_wished(scene, wish, K=intrinsics_of(intrinsics), device=loaded.device, progress=progress)
        progress(0, 1, "writing files")
        files = refined.scene.write(output, formats, options=exported, overwrite=overwrite)
    figures = summarise(refined.scene, exported, files, time.perf_counter() - start, cameras=refined.words)
    print_json(figures) if as_json else show_summary(figures)


@app.command()
def match(
    first: Annotated[Path, typer.Argument(help="A photo.")],
    second: Annotated[Path, typer.Argument(help="Another photo of the same place.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture of the matches (.png).")] = Path(
        "matches.png"
    ),
    matches: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Write all matches, cameras and focal lengths, too (.npz or .json)."),
    ] = None,
    model: ModelName = "manyview-small-pairs",
    device: Device = "auto",
    lines: Annotated[int, typer.Option(min=0, max=100, help="Matches that are drawn.")] = 60,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are already there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find the pixels of two photos that show the same place, and draw them (DUSt3R models)."""
    from manyview.app.console import print_json, show_figures, show_files
    from manyview.app.match_picture import save_match_picture
    from manyview.methods.match import match_pictures
    from manyview.methods.model import load

    outputs = [output] if matches is None else [output, matches]
    refuse_files(outputs, inputs=[first, second], overwrite=overwrite)
    loaded = load(model, device=device)
    found = match_pictures(loaded, first, second, square_ok=loaded.info.square_ok, cameras=loaded.info.cameras)
    files = [] if matches is None else [found.save(matches)]
    files.append(save_match_picture(found, output, max_lines=lines))
    print_json(found.figures) if as_json else show_figures(found.figures)
    show_files(files)


@app.command()
def view(
    scene: Annotated[Path, typer.Argument(help="A folder that `reconstruct` wrote.")],
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 8080,
    host: Annotated[
        str, typer.Option(help="Address to listen on; the default cannot be reached from outside.")
    ] = "127.0.0.1",
) -> None:
    """Look at a scene in the browser."""
    from manyview.app.viewer import view as show
    from manyview.scene import Scene

    show(Scene.load(scene), host=host, port=port)


@app.command()
def export(
    scene: Annotated[Path, typer.Argument(help="A folder that `reconstruct` wrote.")],
    formats: Annotated[str, typer.Option("--formats", "-f", help="Comma-separated, as --export of reconstruct.")],
    output: Annotated[Optional[Path], typer.Option("--output", "-o", help="Default: the same folder.")] = None,  # noqa: UP045
    group: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=0, help="Only the photos of this group, where they fall into groups without a link."),
    ] = None,
    percentile: Percentile = 20.0,
    include_low_confidence: LowConfidence = False,
    copy_images: CopyImages = False,
    masks: Masks = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a scene in other formats."""
    from manyview.app.console import show_files
    from manyview.scene import Scene

    options = export_options(percentile, include_low_confidence, copy_images, masks, listed(formats))
    loaded = Scene.load(scene)
    chosen = loaded if group is None else loaded.group(group)
    show_files(chosen.export(output or scene, listed(formats), options=options, overwrite=overwrite))


@app.command()
def demo(
    output: Output = Path("demo-output"),
    model: ModelName = "manyview-small",
    as_json: AsJson = False,
) -> None:
    """Reconstruct a made-up world and compare the result with the exact truth."""
    from manyview.app.console import print_json, progress_bars, show_demo
    from manyview.app.demo import run_demo

    with progress_bars(quiet=as_json) as progress:
        result = run_demo(output, model=model, progress=progress)
    print_json(result.figures) if as_json else show_demo(result.figures, result.files, result.seconds)
