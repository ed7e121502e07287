"""The network together with all that turns a batch into a loss, as one module.

One module, because what averages gradients over processes has to see all parameters and wrap one forward pass.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from manyview.geometry.posed_views import PosedViews
from manyview.networks.families import Network, NetworkConfig
from manyview.networks.pointmaps import Pointmaps
from manyview.training.batch_share import Share, whole
from manyview.training.cameras import CameraLoss, true_cameras
from manyview.training.data import targets
from manyview.training.dust3r_losses import dust3r_loss
from manyview.training.forward import in_the_order_predicted, joint_depth, joint_dim, predict
from manyview.training.losses import fast3r_loss
from manyview.training.matching import MatchingLoss, PlaceLoss, token_matches
from manyview.training.recipe import Recipe

# At which share of the joint blocks' depth each helper loss looks at the tokens.
HELPER_DEPTHS = {"matching": 1 / 2, "place": 3 / 4, "camera": 1.0}


class Objective(nn.Module):
    """A batch -> the numbers of a step, "total" (what is minimised) among them.

    Args:
        network: what is trained.
        recipe: which losses, with which weights.
        share: of a batch that is split over processes.
    """

    def __init__(self, network: Network, recipe: Recipe, share: Share = whole) -> None:
        super().__init__()
        self.network = network
        self.helpers = helper_losses(recipe)
        self.recipe = recipe
        self.share = share

    def forward(
        self,
        images: Tensor,
        depth: Tensor,
        points: Tensor,
        valid: Tensor,
        K: Tensor,
        world_from_camera: Tensor,
        view_ids: Tensor,
    ) -> dict[str, Tensor]:
        """The fields of `PosedViews`, and (B, N) rows of the index table -> scalars by name."""
        batch = PosedViews(
            images=images, depth=depth, points=points, valid=valid, K=K, world_from_camera=world_from_camera
        )
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.recipe.bf16):
            local = self.recipe.objective == "fast3r"
            predicted, depths = predict(self.network, images, view_ids, local=local)
        batch = in_the_order_predicted(self.network, batch)
        figures = self.main_loss(predicted, batch)
        helpers = self.helper_values(depths, batch)
        weighted = [getattr(self.recipe, f"{name}_weight") * value for name, value in helpers.items()]
        return {"total": sum(weighted, figures["loss"]), **figures, **helpers}

    def main_loss(self, predicted: Pointmaps, batch: PosedViews) -> dict[str, Tensor]:
        """ "loss" and the mean errors of points."""
        truth = targets(batch)
        if self.recipe.objective == "dust3r":
            pairs = dust3r_loss(predicted, truth, self.recipe.dust3r, share=self.share)
            return {"loss": pairs.total, **global_errors(pairs.error)}
        loss = fast3r_loss(
            predicted, truth, local_scale_consistent=self.recipe.local_scale_consistent, share=self.share
        )
        return {"loss": loss.total, **global_errors(loss.global_error), "local_error": loss.local_error.mean()}

    def helper_values(self, depths: list[Tensor], batch: PosedViews) -> dict[str, Tensor]:
        """The helper losses that have a weight."""
        truths = {}
        if "matching" in self.helpers or "place" in self.helpers:
            truths["matching"] = truths["place"] = token_matches(batch, self.network.config.patch_size)
        if "camera" in self.helpers:
            truths["camera"] = true_cameras(batch)
        return {
            name: helper(depths[helper_depth(self.network.config, name) - 1], truths[name], self.share)
            for name, helper in self.helpers.items()
        }


def helper_losses(recipe: Recipe) -> nn.ModuleDict:
    """Losses with weights of their own, by name; those whose weight in the recipe is above 0."""
    dim = joint_dim(recipe.network)
    known = {
        "matching": lambda: MatchingLoss(dim, recipe.matching_width),
        "place": lambda: PlaceLoss(dim),
        "camera": lambda: CameraLoss(dim),
    }
    return nn.ModuleDict({name: make() for name, make in known.items() if getattr(recipe, f"{name}_weight") > 0})


def helper_depth(config: NetworkConfig, helper: str) -> int:
    """After which of the joint blocks a helper loss looks at the tokens, from 1 on."""
    return max(1, int(joint_depth(config) * HELPER_DEPTHS[helper]))


def global_errors(error: Tensor) -> dict[str, Tensor]:
    """Errors (N,) a view -> the mean, and the mean without the first view, which needs no other to be right."""
    others = error[1:] if len(error) > 1 else error
    return {"global_error": error.mean(), "other_views_global_error": others.mean()}
