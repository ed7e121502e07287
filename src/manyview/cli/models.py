"""Sub-commands about models, their training and the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from manyview.cli.shared import AsJson, Device, Output, Overwrite, app, listed, size_of


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

    settings = named_settings(listed(show), listed(paths), spread=spread, moving=(moving, moving), samples=samples)
    with progress_bars() as progress:
        seeds = list(range(seed, seed + scenes))
        files = write_worlds(
            output, seeds, views=views, size=size_of(size), settings=settings, overwrite=overwrite, progress=progress
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
