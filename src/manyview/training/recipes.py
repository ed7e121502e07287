"""Recipes by name: the packaged small model, the published Fast3R, and fine-tuning of any model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from manyview.errors import InputError
from manyview.networks.dust3r import Dust3RConfig
from manyview.networks.fast3r import Fast3RConfig
from manyview.training.initial import differ_in_heads_alone
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
# The same, as a pairwise network: it starts from the packaged model.
SMALL_PAIR_NETWORK = Dust3RConfig(
    patch_size=SMALL_NETWORK.patch_size,
    encoder_dim=SMALL_NETWORK.encoder_dim,
    encoder_heads=SMALL_NETWORK.encoder_heads,
    encoder_depth=SMALL_NETWORK.encoder_depth,
    decoder_dim=SMALL_NETWORK.fusion_dim,
    decoder_heads=SMALL_NETWORK.fusion_heads,
    decoder_depth=SMALL_NETWORK.fusion_depth,
    head_widths=SMALL_NETWORK.head_widths,
    head_features=SMALL_NETWORK.head_features,
    head_last_features=SMALL_NETWORK.head_last_features,
    decoder_coordinates=True,
    decoder_sides=True,
    decoder_qk_norm=True,
)
LOW_SIZES = ((64, 80), (80, 64), (72, 72), (56, 96), (64, 96))
MIDDLE_SIZES = ((96, 128), (128, 96), (112, 112), (88, 136), (96, 144))

# (height, width); one is drawn for each batch.
PUBLISHED_SIZES = ((384, 512), (336, 512), (288, 512), (256, 512), (160, 512))
PUBLISHED_SETS: tuple[SourceKind, ...] = ("co3d", "scannetpp", "arkitscenes", "habitat", "blendedmvs", "megadepth")
PUBLISHED_STEPS = 174_000
PUBLISHED_BATCH, PUBLISHED_VIEWS = 128, 20
DUST3R_SETS = 8  # of the published mixture; an epoch has equally many pairs of each


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


def small_pairs() -> Recipe:
    """The packaged pairwise model, `manyview-small-pairs`: from `manyview-small`, on pairs alone."""
    return Recipe(
        name="small-pairs",
        description="small and pairwise (DUSt3R), for a CPU; trained on procedural worlds alone, free to use",
        image_size=128,
        network=SMALL_PAIR_NETWORK,
        initial="manyview-small",
        objective="dust3r",
        steps=2150,
        optimiser="muon",
        learning_rate=5e-4,
        stages=(Stage(until=2150, sizes=MIDDLE_SIZES, views=(2,), images=16, sources=near_and_far()),),
        warmup_steps=100,
        decay_steps=1650,
        matching_weight=0.0,
        place_weight=0.3,
        camera_weight=0.0,
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


def dust3r_224() -> Recipe:
    """The first published stage of DUSt3R (arXiv 2312.14132 and its public commands): linear heads, squares.

    It starts from CroCo v2: a model file of ours with those weights in the encoder and in both decoders is given as
    `initial`; without one all weights are random. Of the eight sets of the mixture StaticThings3D and Waymo are not
    read here; the shares of the others are equal, and the number of steps is that of all eight. Otherwise than
    published: a batch comes from one set, matrix products are float32 instead of TF32, and the last weights are the
    result instead of the best on validation pairs. It took eight A100 GPUs about 102 hours.
    """
    return _published_pairs("dust3r-224", 224, head="linear", epochs=100, warmup_epochs=10, pairs=100_000, batch=128)


def dust3r_512() -> Recipe:
    """The second published stage of DUSt3R: linear heads, pictures of 512 pixels in five shapes, one a batch.

    `initial` is the model of `dust3r-224`. What differs from the published run is said there; besides, portrait
    pictures are cropped to the landscape shape of their batch instead of being transposed. About 88 hours.
    """
    return _published_pairs("dust3r-512", 512, head="linear", epochs=100, warmup_epochs=20, pairs=10_000, batch=64)


def dust3r_512_dpt() -> Recipe:
    """The third published stage of DUSt3R: new DPT heads on the encoder and decoders of `dust3r-512` (`initial`).

    What differs from the published run is said at the first two stages. About 65 hours.
    """
    return _published_pairs("dust3r-512-dpt", 512, head="dpt", epochs=90, warmup_epochs=15, pairs=10_000, batch=64)


def _published_pairs(
    name: str, size: int, *, head: Literal["linear", "dpt"], epochs: int, warmup_epochs: int, pairs: int, batch: int
) -> Recipe:
    """A published stage: `pairs` of each set an epoch, `batch` pairs a step (each in both orders)."""
    steps_of_epoch = DUST3R_SETS * pairs // batch
    steps = epochs * steps_of_epoch
    stage = Stage(
        until=steps,
        sizes=((size, size),) if size == 224 else PUBLISHED_SIZES,
        views=(2,),
        images=2 * batch,
        sources=tuple(Source(kind=kind, folder=kind) for kind in PUBLISHED_SETS),
    )
    return Recipe(
        name=name,
        description=f"DUSt3R ({head} heads, {size} pixels) after the published recipe",
        image_size=size,
        network=Dust3RConfig(head=head),
        objective="dust3r",
        stages=(stage,),
        steps=steps,
        schedule="cosine",
        warmup_steps=warmup_epochs * steps_of_epoch,
        learning_rate=1e-4,
        smallest_rate=1e-6,
        weight_decay=0.05,
        betas=(0.9, 0.95),
        clip=0.0,
        matching_weight=0.0,
        place_weight=0.0,
        camera_weight=0.0,
        bf16=False,
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


RECIPES: dict[str, Callable[[], Recipe]] = {
    "small": small,
    "small-pairs": small_pairs,
    "fast3r": fast3r,
    "dust3r-224": dust3r_224,
    "dust3r-512": dust3r_512,
    "dust3r-512-dpt": dust3r_512_dpt,
    "finetune": finetune,
}


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
    """The recipe for the network, the pictures and the use of its `initial` model.

    A pairwise recipe keeps its own where that model is a Fast3R, or has the same encoder and decoders.
    """
    from manyview.networks.checkpoints.find import find_network

    network, info = find_network(recipe.initial)
    if isinstance(recipe.network, Dust3RConfig) and (
        isinstance(network.config, Fast3RConfig) or differ_in_heads_alone(recipe.network, network.config)
    ):
        return recipe  # its weights are taken over (`initial.load_initial`)
    if isinstance(network.config, Dust3RConfig):
        recipe = for_pairs(recipe)
    return replace(
        recipe,
        network=network.config,
        image_size=info.image_size,
        cameras=info.cameras,
        least_confidence=info.least_confidence,
    )


def for_pairs(recipe: Recipe) -> Recipe:
    """The recipe with the objective and the numbers of views that a pairwise network is trained with."""
    return replace(recipe, objective="dust3r", stages=tuple(replace(stage, views=(2,)) for stage in recipe.stages))


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
    # A network of another family fits only when objective and views do.
    found = sorted(changes(RECIPES[recipe.name](), recipe), key=lambda change: change[0] == "network")
    return [f"{key}={as_text(value)}" for key, value in found]
