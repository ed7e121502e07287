"""What to train, on what, and for how long, as types; every number that a run depends on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from manyview.errors import InputError
from manyview.networks.dust3r import Dust3RConfig
from manyview.networks.families import NetworkConfig
from manyview.networks.fast3r import Fast3RConfig
from manyview.training.dust3r_losses import Dust3rOptions
from manyview.training.optimisers import OptimiserName
from manyview.training.schedules import SCHEDULES, Schedule
from manyview.worlds import WorldSettings

SourceKind = Literal[
    "worlds", "worlds-folder", "co3d", "scannetpp", "arkitscenes", "habitat", "blendedmvs", "megadepth"
]
Strategy = Literal["auto", "one", "ddp", "fsdp"]

# Width / height of the pictures of a stage that names no sizes.
USUAL_ASPECTS = (4 / 3, 3 / 4, 1.0, 3 / 2)
MOST_SCENES = 256  # of a batch: each step owns this many seeds


def expect(fits: bool, message: str) -> None:
    """Raises InputError with what a recipe's value should be."""
    if not fits:
        raise InputError(f"recipe: {message}")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where scenes come from.

    Attributes:
        kind: "worlds" are made up while training; the others are read from a folder (`manyview.datasets`).
        folder: of the data set; relative to `Recipe.data`.
        share: of the batches, relative to the shares of the other sources.
        worlds: how made-up scenes look.
    """

    kind: SourceKind = "worlds"
    folder: str = ""
    share: float = 1.0
    worlds: WorldSettings = field(default_factory=WorldSettings)

    def __post_init__(self) -> None:
        expect(self.share > 0, f"share is above 0, got {self.share}")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stretch of training with one kind of batch.

    Attributes:
        until: first step after this stage.
        sizes: (height, width) of the pictures; one is drawn for each batch. Without any, usual aspect ratios at the
            recipe's `image_size`.
        views: numbers of views; one is drawn for each batch.
        images: views times scenes of a batch, over all processes.
        sources: a batch comes from one of them, drawn by share.
    """

    until: int
    sizes: Sequence[tuple[int, int]] = ()
    views: Sequence[int]
    images: int
    sources: Sequence[Source] = (Source(),)

    def __post_init__(self) -> None:
        expect(self.until >= 1, f"until is at least 1, got {self.until}")
        expect(len(self.views) > 0 and min(self.views) >= 1, f"views are numbers from 1 on, got {list(self.views)}")
        expect(self.images >= 1, f"images is at least 1, got {self.images}")
        expect(len(self.sources) > 0, "sources has at least one entry")
        most = max(1, self.images // min(self.views))
        expect(
            most <= MOST_SCENES, f"a batch has at most {MOST_SCENES} scenes, got images={self.images}: {most} scenes"
        )

    def scenes(self, views: int) -> int:
        """Scenes of a batch of so many views."""
        return max(1, self.images // views)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training run. The same recipe and seed see the same scenes in the same order.

    Attributes:
        network: sizes and options of the network. A pairwise one (`Dust3RConfig`) is trained on stages of two views,
            each pair in both orders.
        initial: a model to start from, as `manyview.load` takes it; `network` is then that model's, unless a pairwise
            network starts from a Fast3R of equal sizes (`initial.take_over_fast3r`). Empty: random.
        data: folder that the sources' folders are in.
        stages: what the batches are made of, one stage after another.
        steps: optimiser steps in all.
        schedule, warmup_steps, decay_steps: how the learning rate changes (`schedules`); `decay_steps` is of
            "constant-then-linear" alone.
        learning_rate, smallest_rate: the largest one, and the one at the end.
        optimiser: "adamw", or "muon": Muon for the matrices of the blocks, AdamW for the rest (`optimisers`).
        weight_decay, decay_vectors, betas, epsilon: of AdamW (Muon: the decay, and its momentum is betas[1]). Biases
            and norms decay only with `decay_vectors`.
        clip: largest norm of a gradient; 0 does not clip.
        ema_decay: the model that is evaluated and written is the exponential moving average of the weights with this
            decay (of early steps with a smaller one); 0 keeps none.
        objective: "fast3r" (points in the first camera's frame and in each view's own) or "dust3r" (the former alone).
        local_scale_consistent: of "fast3r": local points are measured in the scale of the global ones.
        dust3r: options of "dust3r".
        matching_weight, place_weight, camera_weight: weights of the helper losses (`matching`, `cameras`) on the tokens
            at one half, three quarters and the end of the fusion. A helper of weight 0 is not computed and has no
            parameters.
        matching_width: channels in which tokens are compared.
        bf16: compute products in bfloat16; weights, norms and the loss stay in float32.
        activation_checkpointing: compute the blocks a second time for the gradient instead of keeping what is inside.
        compile: compile the blocks with `torch.compile`.
        strategy: how processes started by torchrun share the work: "ddp" (each has all weights) or "fsdp" (weights are
            sharded). "auto" is ddp where there are several, "one" refuses them.
        image_size: longer side of pictures that the trained model should be given.
        cameras, least_confidence: what the model file says about the use of the model (`ModelInfo`).
        seed: of the initial weights and of the scenes.
    """

    name: str
    description: str
    image_size: int
    network: NetworkConfig
    stages: Sequence[Stage]
    steps: int
    initial: str = ""
    data: str = ""
    schedule: Schedule = "constant-then-linear"
    warmup_steps: int = 300
    decay_steps: int = 2000
    learning_rate: float = 5e-4
    smallest_rate: float = 0.0
    optimiser: OptimiserName = "adamw"
    weight_decay: float = 0.05
    decay_vectors: bool = False
    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: float = 1e-8
    clip: float = 1.0
    ema_decay: float = 0.0
    objective: Literal["fast3r", "dust3r"] = "fast3r"
    local_scale_consistent: bool = False
    dust3r: Dust3rOptions = field(default_factory=Dust3rOptions)
    matching_weight: float = 0.2
    place_weight: float = 1.0
    camera_weight: float = 0.5
    matching_width: int = 64
    bf16: bool = True
    activation_checkpointing: bool = False
    compile: bool = False
    strategy: Strategy = "auto"
    cameras: Literal["pnp", "similarity"] = "pnp"
    least_confidence: float = 1.5
    seed: int = 0

    def __post_init__(self) -> None:
        _check_run(self)
        _check_optimiser(self)
        check_network(self.network)
        if isinstance(self.network, Dust3RConfig):
            check_pairs(self)
        patch = self.network.patch_size
        for size in (size for stage in self.stages for size in self.sizes(stage)):
            expect(
                min(size) >= patch and not any(side % patch for side in size),
                f"sizes are multiples of the network's patches of {patch} pixels, got {tuple(size)}",
            )

    def stage(self, step: int) -> Stage:
        """The stage that a step belongs to; the last one goes on for ever."""
        return next((stage for stage in self.stages if step < stage.until), self.stages[-1])

    def sizes(self, stage: Stage) -> Sequence[tuple[int, int]]:
        """(height, width) of the pictures of a stage."""
        return stage.sizes or usual_sizes(self.image_size, self.network.patch_size)

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        share = SCHEDULES[self.schedule](step, self.steps, self.warmup_steps, self.decay_steps)
        # The smallest rate is that of the end; on the way up from 0 the rate may be below it.
        rising = step < self.warmup_steps
        lowest = 0.0 if rising else self.smallest_rate
        return lowest + (self.learning_rate - lowest) * share


def usual_sizes(image_size: int, patch: int) -> list[tuple[int, int]]:
    """(height, width) of usual aspect ratios, the longer side about `image_size`; multiples of `patch`."""
    sizes = []
    for aspect in USUAL_ASPECTS:
        height, width = image_size / max(1.0, aspect), image_size * min(1.0, aspect)
        sizes.append((max(1, int(height / patch)) * patch, max(1, int(width / patch)) * patch))
    return sizes


def check_pairs(recipe: Recipe) -> None:
    """Raises InputError for a recipe that cannot train a pairwise network."""
    expect(recipe.objective == "dust3r", f"a pairwise network is trained with objective=dust3r, not {recipe.objective}")
    for stage in recipe.stages:
        expect(set(stage.views) == {2}, f"a pairwise network is trained on views=[2], got {list(stage.views)}")


def check_network(config: NetworkConfig) -> None:
    """Raises InputError for sizes that make no network."""
    expect(config.patch_size >= 1, f"network.patch_size is at least 1, got {config.patch_size}")
    joint = "decoder" if isinstance(config, Dust3RConfig) else "fusion"
    depth = getattr(config, f"{joint}_depth")
    if isinstance(config, Fast3RConfig):
        expect(depth >= 4 and depth % 4 == 0, f"network.fusion_depth is a multiple of 4, got {depth}")
    else:
        least = 4 if config.head == "dpt" else 1
        expect(depth >= least, f"network.decoder_depth is at least {least}, got {depth}")
    expect(config.encoder_depth >= 1, f"network.encoder_depth is at least 1, got {config.encoder_depth}")
    for part in ("encoder", joint):
        dim, heads = getattr(config, f"{part}_dim"), getattr(config, f"{part}_heads")
        expect(
            heads >= 1 and dim >= 4 and dim % (4 * heads) == 0,
            f"network.{part}_dim is a multiple of 4 times {part}_heads (two halves of pairs), got {dim} and {heads}",
        )


def _check_run(recipe: Recipe) -> None:
    expect(recipe.steps >= 1, f"steps is at least 1, got {recipe.steps}")
    expect(len(recipe.stages) > 0, "stages has at least one entry")
    expect(recipe.image_size >= 1, f"image_size is at least 1, got {recipe.image_size}")
    expect(recipe.seed >= 0, f"seed is at least 0, got {recipe.seed}")


def _check_optimiser(recipe: Recipe) -> None:
    expect(recipe.learning_rate > 0, f"learning_rate is above 0, got {recipe.learning_rate}")
    expect(
        0 <= recipe.smallest_rate <= recipe.learning_rate,
        f"smallest_rate is between 0 and learning_rate, got {recipe.smallest_rate}",
    )
    expect(min(recipe.betas) >= 0 and max(recipe.betas) < 1, f"betas are from 0 to below 1, got {tuple(recipe.betas)}")
    expect(
        recipe.optimiser == "adamw" or recipe.strategy != "fsdp",
        "optimiser=muon needs whole matrices, strategy=fsdp shards them; use strategy=ddp, or optimiser=adamw",
    )
    expect(recipe.epsilon > 0, f"epsilon is above 0, got {recipe.epsilon}")
    expect(0 <= recipe.ema_decay < 1, f"ema_decay is from 0 to below 1, got {recipe.ema_decay}")
    expect(recipe.matching_width >= 1, f"matching_width is at least 1, got {recipe.matching_width}")
    names = ("warmup_steps", "decay_steps", "weight_decay", "clip", "matching_weight", "place_weight", "camera_weight")
    for name in names:
        expect(getattr(recipe, name) >= 0, f"{name} is at least 0, got {getattr(recipe, name)}")
