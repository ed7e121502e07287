"""Recipes by name: the packaged small model, the published Fast3R, and fine-tuning of any model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from manyview.errors import InputError
from manyview.networks.fast3r import Fast3RConfig
from manyview.training.overrides import as_text, changes, override
from manyview.training.recipe import Recipe, Source, SourceKind, Stage
from manyview.worlds import WorldSettings

__all__ = ["RECIPES", "Recipe", "Source", "Stage", "missing_data", "named_recipe", "set_options"]

SMALL_NETWORK = Fast3RConfig(
    patch_size=8,
    encoder_dim=192,
    encoder_heads=3,
    encoder_depth=4,
    fusion_dim=192,
    fusion_heads=3,
    fusion_depth=8,
    head_widths=(16, 32, 64, 96),
    head_features=32,
    head_last_features=16,
    fusion_attention="alternating",
    fusion_positions=True,
    fusion_coordinates=True,
    fusion_qk_norm=True,
)
LOW_SIZES = ((64, 80), (80, 64), (72, 72), (56, 96), (64, 96))
MIDDLE_SIZES = ((96, 128), (128, 96), (112, 112), (88, 136), (96, 144))

# (height, width); one is drawn for each batch.
PUBLISHED_SIZES = ((384, 512), (336, 512), (288, 512), (256, 512), (160, 512))
PUBLISHED_SETS: tuple[SourceKind, ...] = ("co3d", "scannetpp", "arkitscenes", "habitat", "blendedmvs", "megadepth")
PUBLISHED_STEPS = 174_000
PUBLISHED_BATCH, PUBLISHED_VIEWS = 128, 20


def photographed(spread: float, share: float = 1.0) -> Source:
    """Worlds as people photograph them: now and then cropped, or with a picture of something else among them."""
    return Source(share=share, worlds=WorldSettings(spread=spread, turned_away=0.02, off_centre=0.03))


def near_and_far() -> tuple[Source, ...]:
    """Small motions, from which correspondence is learnt, as often as larger ones."""
    return photographed(0.35, 2.0), photographed(0.7, 2.0), photographed(1.0)


def small() -> Recipe:
    """The packaged model, `manyview-small`: two near views first, then more views, farther apart, then finer pictures.

    What led to it, and how the packaged weights came about, is in docs/training-log.md.
    """
    return Recipe(
        name="small",
        description="small, for a CPU; trained on procedural worlds alone, free to use",
        image_size=128,
        network=SMALL_NETWORK,
        steps=20_000,
        optimiser="muon",
        learning_rate=1e-3,
        stages=(
            Stage(until=1000, sizes=LOW_SIZES, views=(2,), images=32, sources=(photographed(0.4),)),
            Stage(until=6000, sizes=LOW_SIZES, views=(2, 2, 3, 4), images=32, sources=near_and_far()),
            Stage(until=20_000, sizes=MIDDLE_SIZES, views=(2, 3, 4, 6, 8), images=24, sources=near_and_far()),
        ),
        decay_steps=15_000,
        cameras="similarity",
    )


def fast3r() -> Recipe:
    """The published recipe (arXiv 2501.13928 and its public configuration): 20 views of six data sets in equal shares.

    The published run starts its encoder from DUSt3R's weights; without `initial` all weights are random. It took 128
    A100 GPUs six days.
    """
    return Recipe(
        name="fast3r",
        description="Fast3R after the published recipe",
        image_size=512,
        network=Fast3RConfig(),
        steps=PUBLISHED_STEPS,
        stages=(
            Stage(
                until=PUBLISHED_STEPS,
                sizes=PUBLISHED_SIZES,
                views=(PUBLISHED_VIEWS,),
                images=PUBLISHED_BATCH * PUBLISHED_VIEWS,
                sources=tuple(Source(kind=kind, folder=kind) for kind in PUBLISHED_SETS),
            ),
        ),
        schedule="cosine",
        warmup_steps=PUBLISHED_STEPS * 10 // 500,
        learning_rate=1e-4,
        smallest_rate=1e-6,
        weight_decay=0.05,
        decay_vectors=True,
        clip=0.0,
        matching_weight=0.0,
        place_weight=0.0,
        camera_weight=0.0,
        activation_checkpointing=True,
        seed=42,
    )


def finetune() -> Recipe:
    """Any model a little further, on made-up worlds or on one's own data: a low rate, and the mean of the weights.

    `initial` names the model; sizes of the network and of the pictures are taken from it.
    """
    return Recipe(
        name="finetune",
        description="a model that was trained further",
        initial="manyview-small",
        image_size=128,
        network=SMALL_NETWORK,
        steps=2000,
        stages=(Stage(until=2000, views=(2, 3, 4), images=16),),
        schedule="cosine",
        warmup_steps=100,
        learning_rate=5e-5,
        smallest_rate=5e-7,
        ema_decay=0.999,
        matching_weight=0.0,
        place_weight=0.0,
        camera_weight=0.0,
    )


RECIPES: dict[str, Callable[[], Recipe]] = {"small": small, "fast3r": fast3r, "finetune": finetune}


def named_recipe(name: str, steps: int | None = None, settings: Sequence[str] = ()) -> Recipe:
    """A recipe by name, with some of its values replaced.

    Args:
        name: one of `RECIPES`.
        steps: ends it after another number of steps.
        settings: "key=value" (`overrides.override`).

    Raises:
        InputError: there is no such recipe or key, or a value does not fit.
        WeightsError: the model to start from cannot be loaded.
    """
    if name not in RECIPES:
        raise InputError(f"there is no recipe {name!r}", hint=f"Recipes: {', '.join(RECIPES)}.")
    recipe = RECIPES[name]()
    recipe = override(recipe, [setting for setting in settings if setting.partition("=")[0].strip() == "initial"])
    if recipe.initial:
        recipe = continued_from(recipe)
    recipe = override(recipe, settings)
    return recipe if steps is None else replace(recipe, steps=steps)


def continued_from(recipe: Recipe) -> Recipe:
    """The recipe for the network, the pictures and the use of its `initial` model."""
    from manyview.networks.checkpoints.find import find_network

    network, info = find_network(recipe.initial)
    return replace(
        recipe,
        network=network.config,
        image_size=info.image_size,
        cameras=info.cameras,
        least_confidence=info.least_confidence,
    )


def missing_data(recipe: Recipe) -> None:
    """Raises InputError if a folder of a source is not there, before anything is computed."""
    for source in (source for stage in recipe.stages for source in stage.sources):
        folder = source_folder(recipe, source)
        if folder is not None and not folder.is_dir():
            raise InputError(
                f"recipe {recipe.name}: no {source.kind} data: there is no folder {folder}",
                hint=f"Give the folder that holds it: --set data=FOLDER (with {source.folder or 'the data'} in it).",
            )


def source_folder(recipe: Recipe, source: Source) -> Path | None:
    """Where a source's data are; None for made-up worlds."""
    return None if source.kind == "worlds" else Path(recipe.data) / source.folder


def set_options(recipe: Recipe) -> list[str]:
    """The `--set` arguments that make this recipe of the named one; empty for a recipe without a name."""
    if recipe.name not in RECIPES:
        return []
    return [f"{key}={as_text(value)}" for key, value in changes(RECIPES[recipe.name](), recipe)]
