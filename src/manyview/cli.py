"""The `manyview` command: one thin function a sub-command."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from manyview.errors import ExportError, InputError, ManyviewError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Photos or a video in; cameras, depth and dense coloured 3D points out.",
)

INTERRUPTED = 130  # exit code after Ctrl-C, as shells have it

Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")]
ModelName = Annotated[str, typer.Option("--model", "-m", help="Packaged name, file, folder or hub id (owner/name).")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Formats = Annotated[str, typer.Option("--export", help="Of ply,glb,colmap,nerfstudio,depth,npz,tum; comma-separated.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace results that are already there (only ours).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the summary as JSON on stdout.")]
Percentile = Annotated[float, typer.Option(help="Leave out this share of each view's least confident points.")]
LowConfidence = Annotated[bool, typer.Option("--include-low-confidence", help="Export doubtful views, too.")]
CopyImages = Annotated[bool, typer.Option("--copy-images", help="Copy photos into the exports instead of linking.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show tracebacks.")]


def main() -> None:
    """Run the command; errors of ours become one line, a hint and an exit code."""
    from manyview.app.console import show_error

    # What the library logs as a warning stands in the summary and in the files already.
    logging.getLogger("manyview").addHandler(logging.NullHandler())
    try:
        app()
    except ManyviewError as error:
        show_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _show_version(wanted: bool) -> None:
    if wanted:
        import manyview

        typer.echo(manyview.__version__)
        raise typer.Exit


@app.callback()
def settings(
    verbose: Verbose = False,
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True)] = False,
) -> None:
    """Photos or a video in; cameras, depth and dense coloured 3D points out."""
    _set_verbose(verbose)


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
        typer.Option(help="Fast3R: shared (one camera) or per_view (mixed cameras)."),
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
    from manyview.scene import check_formats, result_names

    _set_verbose(verbose)
    formats = check_formats(_listed(export))
    exported = _export_options(percentile, include_low_confidence, copy_images)
    refuse_inputs_inside(output, inputs)
    refuse_results(output, overwrite=overwrite, names=result_names(formats))
    start = time.perf_counter()
    chosen = inputs[0] if len(inputs) == 1 else list(inputs)
    find_sources(chosen)  # what is missing is said before gigabytes are loaded
    given = {"focal": focal, "cameras": cameras, "pairs": pairs, "alignment": alignment, "iterations": iterations}
    with progress_bars(quiet=as_json) as progress:
        progress(0, 1, "loading the model")
        loaded = load(model, device=device, dtype=_one_of("dtype", dtype, ("float32", "bfloat16", "float16", None)))
        progress(1, 1, "loading the model")
        scene = loaded.reconstruct(
            chosen,
            seed=seed,
            image_size=image_size,
            fit=_one_of("fit", fit, ("crop", "pad")),
            intrinsics=_intrinsics(intrinsics),
            options=named_options(loaded.info.family, given),
            fps=fps,
            max_frames=max_frames,
            max_pixels=max_pixels,
            strict=strict,
            dedup=dedup,
            progress=progress,
        )
        progress(0, 1, "writing files")
        files = scene.write(output, formats, options=exported, overwrite=overwrite)
    figures = summarise(scene, exported, files, time.perf_counter() - start)
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
    _refuse_files(outputs, inputs=[first, second], overwrite=overwrite)
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
    overwrite: Overwrite = False,
) -> None:
    """Write a scene in other formats."""
    from manyview.app.console import show_files
    from manyview.scene import Scene

    options = _export_options(percentile, include_low_confidence, copy_images)
    loaded = Scene.load(scene)
    chosen = loaded if group is None else loaded.group(group)
    show_files(chosen.export(output or scene, _listed(formats), options=options, overwrite=overwrite))


@app.command()
def models(as_json: AsJson = False) -> None:
    """List the models that are packaged or can be fetched."""
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table

    from manyview.app.console import print_json
    from manyview.networks.checkpoints.find import list_models

    known = list_models()
    if as_json:
        print_json([asdict(info) for info in known])
        return
    table = Table("model", "pictures", "licence of the weights", "what it is")
    for info in known:
        table.add_row(info.name, f"{info.image_size} px", info.licence, info.description)
    Console().print(table)


@app.command()
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="An official .pth, .ckpt or .safetensors file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .safetensors file to write.")],
    config: Annotated[Optional[Path], typer.Option(help="The release's config.json; default: Fast3R's.")] = None,  # noqa: UP045
    overwrite: Overwrite = False,
) -> None:
    """Turn an official checkpoint into a model file, without running what a pickle may contain."""
    from manyview.app.console import show_files
    from manyview.networks.checkpoints.convert import convert as run

    run(checkpoint, output, config=config, overwrite=overwrite)
    show_files([output])


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


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe: small, fast3r, finetune.")],
    output: Output,
    settings: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--set", help="Change the recipe: learning_rate=1e-4, network.fusion_depth=4, ... Repeatable."),
    ] = None,
    steps: Annotated[Optional[int], typer.Option(help="End after this many steps.")] = None,  # noqa: UP045
    device: Device = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads for the network.")] = 1,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that make batches ahead; 0: on the training device.")
    ] = 1,
    log_every: Annotated[int, typer.Option(min=1, help="Steps between lines of the log.")] = 50,
    save_every: Annotated[int, typer.Option(min=1, help="Steps between saved states.")] = 500,
    evaluate_every: Annotated[int, typer.Option(min=1, help="Steps between evaluations on held-out worlds.")] = 1000,
    tensorboard: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option("--tensorboard/--no-tensorboard", help="Default: where it is installed."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print each line of the log as JSON on stdout.")] = False,
) -> None:
    """Train a model by a recipe, or go on with a run. Several processes: torchrun $(which manyview) train ..."""
    from manyview.app.console import show_files
    from manyview.evaluation.held_out import evaluate_on_worlds
    from manyview.training.loop import Pace, train_and_save
    from manyview.training.progress import print_line, training_progress
    from manyview.training.recipes import named_recipe

    pace = Pace(
        log=log_every,
        save=save_every,
        evaluate=evaluate_every,
        device=device,
        threads=threads,
        workers=workers,
        tensorboard=tensorboard,
    )
    chosen = named_recipe(recipe, steps, settings or ())
    with training_progress(quiet=as_json) as (tick, show_line):
        report = print_line if as_json else show_line
        path = train_and_save(chosen, output, pace=pace, measure=evaluate_on_worlds, report=report, progress=tick)
    if path is not None:
        show_files([path])


@app.command()
def worlds(
    output: Output,
    seed: Annotated[int, typer.Option(help="Of the first world; the next ones have the next numbers.")] = 0,
    scenes: Annotated[int, typer.Option(help="How many worlds.")] = 1,
    views: Annotated[int, typer.Option(help="Pictures of each.")] = 8,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT of the pictures.")] = "640x480",
    show: Annotated[str, typer.Option(help="What: room,corridor,tabletop,object,courtyard,facade,street,...")] = "",
    paths: Annotated[str, typer.Option(help="Camera: orbit,walk,forward,handheld,photographs,panorama.")] = "",
    spread: Annotated[float, typer.Option(help="How far cameras move: 0.4 easy, 1 usual, 2 hard.")] = 1.0,
    moving: Annotated[int, typer.Option(help="Moving objects.")] = 0,
    samples: Annotated[int, typer.Option(help="Rays a pixel.")] = 4,
    overwrite: Overwrite = False,
) -> None:
    """Write made-up worlds with exact cameras and depth, to test reconstruction programs on."""
    from manyview.app.console import progress_bars, show_files
    from manyview.worlds.folder import write_worlds
    from manyview.worlds.settings import named_settings

    settings = named_settings(_listed(show), _listed(paths), spread=spread, moving=(moving, moving), samples=samples)
    with progress_bars() as progress:
        seeds = list(range(seed, seed + scenes))
        files = write_worlds(
            output, seeds, views=views, size=_size(size), settings=settings, overwrite=overwrite, progress=progress
        )
    show_files([path for path in files if path.name == "scene.json"])


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say what works on this machine."""
    from rich.console import Console
    from rich.markup import escape

    from manyview.app.console import print_json
    from manyview.app.doctor import examine

    facts = examine()
    if as_json:
        print_json(facts)
        return
    for name, finding in facts.items():
        Console().print(f"[bold]{name:<18}[/bold] {escape(finding)}", highlight=False)


def _export_options(percentile: float, include_low_confidence: bool, copy_images: bool) -> Any:
    from manyview.scene import ExportOptions

    return ExportOptions(
        percentile=percentile,
        include_low_confidence=include_low_confidence,
        link_images="copy" if copy_images else "link",
    )


def _refuse_files(outputs: list[Path], *, inputs: list[Path], overwrite: bool) -> None:
    """Raise ExportError before the work if a file is in the way; the photos themselves are never replaced."""
    photos = [path.resolve() for path in inputs]
    for path in outputs:
        if path.resolve() in photos:
            raise ExportError(f"the output {path} is one of the photos", hint="Choose another name.")
        if path.exists() and not overwrite:
            raise ExportError(f"{path} exists", hint="Choose another name, or add --overwrite to replace it.")


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _intrinsics(text: str | None) -> Any:
    """ "FX,FY,CX,CY" -> (3, 3) nested list."""
    if text is None:
        return None
    try:
        fx, fy, cx, cy = (float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--intrinsics {text} is not FX,FY,CX,CY", hint="Four numbers in pixels.") from error
    return [[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]


def _size(text: str) -> tuple[int, int]:
    """ "WIDTHxHEIGHT" -> (height, width)."""
    try:
        width, height = (int(part) for part in text.lower().split("x"))
    except ValueError as error:
        raise InputError(f"--size {text} is not WIDTHxHEIGHT", hint="For example 640x480.") from error
    return height, width


def _one_of(option: str, value: str | None, allowed: tuple[str | None, ...]) -> Any:
    if value not in allowed:
        known = ", ".join(str(name) for name in allowed if name)
        raise InputError(f"--{option} {value} is not known", hint=f"Choose one of {known}.")
    return value


def _set_verbose(verbose: bool) -> None:
    if verbose:
        logging.getLogger("manyview").setLevel(logging.DEBUG)
