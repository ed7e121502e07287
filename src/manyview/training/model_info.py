"""What the model file of a run says about itself: name, licence, and how it came about."""

from __future__ import annotations

import shlex

from manyview.networks.checkpoints.model_file import ModelInfo
from manyview.networks.families import family_of
from manyview.training.recipe import Recipe
from manyview.training.recipes import set_options

OWN_LICENCE = "Apache-2.0"


def info_of(recipe: Recipe) -> ModelInfo:
    """The facts about the model that a recipe makes.

    Weights from made-up worlds alone are free to use; others inherit the terms of the initial model and of the data.
    """
    initial = initial_info(recipe)
    sizes = [size for stage in recipe.stages for size in recipe.sizes(stage)]
    square = any(height == width for height, width in sizes)
    sizes_given = all(stage.sizes for stage in recipe.stages)
    return ModelInfo(
        name=f"manyview-{recipe.name}",
        family=family_of(recipe.network),
        licence=licence(recipe, initial),
        source=source(recipe),
        image_size=recipe.image_size,
        square_ok=square if initial is None or sizes_given else initial.square_ok,
        least_confidence=recipe.least_confidence,
        cameras=recipe.cameras,
        description=recipe.description,
    )


def initial_info(recipe: Recipe) -> ModelInfo | None:
    """What the initial model says about itself."""
    if not recipe.initial:
        return None
    from manyview.networks.checkpoints.find import find_network

    return find_network(recipe.initial)[1]


def data_sets(recipe: Recipe) -> list[str]:
    """Kinds of sources, made-up worlds apart."""
    return sorted({source.kind for stage in recipe.stages for source in stage.sources} - {"worlds"})


def licence(recipe: Recipe, initial: ModelInfo | None) -> str:
    """Of the weights."""
    terms = [OWN_LICENCE if initial is None else f"{initial.licence} (of {initial.name}, which it was trained from)"]
    if data_sets(recipe):
        terms = [term for term in terms if initial is not None]
        terms.append(f"terms of the training data ({', '.join(data_sets(recipe))})")
    return "; ".join(terms)


def source(recipe: Recipe) -> str:
    """Where the weights come from: the command that makes them."""
    data = ", ".join(data_sets(recipe))
    options = "".join(f" --set {shlex.quote(setting)}" for setting in set_options(recipe))
    return f"trained on {data or 'procedural worlds'}: manyview train {recipe.name}{options}"
