"""Which pictures of a large collection look at the same things: pairs chosen by the similarity of encoder tokens.

Every token (a patch of a picture, as the encoder describes it) looks for its like in all other pictures and shares one
vote out among them. Two pictures are as similar as the votes that they give each other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from manyview.errors import InputError

VOTERS = 64  # tokens of a picture that vote; with all 192 of a 128x96 picture results are the same within a percent
CANDIDATES = 256  # tokens of a picture that voters are compared with
COMPONENTS = 64  # principal components of the tokens that are compared; half of them would do
TEMPERATURE = 0.1  # of the vote, in units of the cosine; between 0.05 and 0.15 nothing changes
NEIGHBOURS = 8
GOLDEN_RATIO = 0.6180339887498949


@torch.no_grad()
def similarity(tokens: Sequence[Tensor]) -> np.ndarray:
    """How much pictures look like each other, from their encoder tokens.

    Measured on 36 worlds of 24 to 40 views (128x96 pixels, four kinds of camera paths, three spreads, seeds never
    trained on) with the encoder of `manyview-small`, by `benchmarks/pair_inference.py`: of each picture's five
    partners with the largest exact overlap 56 % are among its five most similar pictures and 79 % among ten. The
    cosine of mean tokens, centred, finds 44 % and 67 %; chance 18 % and 34 %. On 19 other worlds the mean of each
    token's best cosine, without a vote, found one to three percent less than the vote; whitened tokens were no better
    than centred ones; comparing with 64 tokens of a picture instead of all found four percent less.

    Deterministic. The work grows with N^2: 200 pictures take about three seconds on one core.

    Args:
        tokens: for each of N pictures (T_k, C), of any floating type; T_k may differ.

    Returns:
        (N, N) float64, symmetric, between 0 and 1. The diagonal is 1; elsewhere it is the mean of both pictures' votes
        for each other, so that the values fall as a collection grows: they rank partners, no more.

    Raises:
        InputError: no pictures, or tokens of different C.
    """
    _check_tokens(tokens)
    views = len(tokens)
    if views == 1:
        return np.ones((1, 1))
    described = _describe(tokens)
    count = min(CANDIDATES, max(len(own) for own in described))
    candidates = torch.stack([_spread(own, count) for own in described])
    votes = torch.stack([_votes(_spread(own, VOTERS), candidates, view) for view, own in enumerate(described)])
    shared = votes.double().cpu().numpy()
    shared = (shared + shared.T) / 2
    np.fill_diagonal(shared, 1.0)
    return shared


def pairs_by_similarity(
    similarity: np.ndarray, *, neighbours: int = NEIGHBOURS, sequence: bool = False, symmetric: bool = False
) -> np.ndarray:
    """Join each picture with those most like it, and all of them by the tree of the most similar pairs.

    The number of pairs grows linearly: about 4.7 N with eight neighbours, since many are each other's.

    Args:
        similarity: (N, N) symmetric; larger is more alike.
        neighbours: pictures that each one is joined with at least.
        sequence: join each picture with the next one too, as for frames of a video.
        symmetric: append each pair in the other direction, after all the others.

    Returns:
        (E, 2) int64, sorted, no pair twice, the first index below the second (before any are appended). The graph is
        connected. One picture has no pair.

    Raises:
        InputError: the similarity is not a square of finite numbers, or `neighbours` is below 1.
    """
    values = np.asarray(similarity, dtype=np.float64)
    if values.ndim != 2 or values.shape[0] != values.shape[1] or not len(values) or not np.isfinite(values).all():
        raise InputError(f"got a similarity of shape {values.shape}; expected finite numbers (N, N)")
    if neighbours < 1:
        raise InputError(f"got {neighbours} neighbours; expected at least one")
    views = len(values)
    found = [_nearest(values, neighbours), _spanning_tree(values)]
    if sequence:
        found.append(np.stack([np.arange(views - 1), np.arange(1, views)], axis=-1))
    edges = np.unique(np.sort(np.concatenate(found), axis=1), axis=0)
    return np.concatenate([edges, edges[:, ::-1]]) if symmetric else edges


def _check_tokens(tokens: Sequence[Tensor]) -> None:
    shapes = [tuple(given.shape) for given in tokens]
    if not shapes or any(len(shape) != 2 or shape[0] < 1 or shape[1] != shapes[0][-1] for shape in shapes):
        raise InputError(f"got tokens of shapes {shapes[:8]}; expected (T, C) for each picture, with one C")


def _describe(tokens: Sequence[Tensor]) -> list[Tensor]:
    """(T_k, C) -> (T_k', COMPONENTS) float32 unit vectors: centred over the collection, leading components only.

    What all pictures have in common would otherwise make up most of every cosine.
    """
    # As many are kept as are looked at later; the others only cost memory.
    kept = [_spread(given, max(VOTERS, CANDIDATES)) for given in tokens]
    sample = torch.cat([_spread(given, VOTERS).float() for given in tokens]).nan_to_num(0.0, 0.0, 0.0)
    mean = sample.mean(0)
    centred = sample - mean
    covariance = (centred.T @ centred).double().cpu()
    axes = torch.linalg.eigh(covariance).eigenvectors[:, -COMPONENTS:].float().to(sample.device)
    return [F.normalize((given.float().nan_to_num(0.0, 0.0, 0.0) - mean) @ axes, dim=-1) for given in kept]


def _spread(tokens: Tensor, count: int) -> Tensor:
    """`count` of the tokens (T, C), well spread over the picture; if there are fewer, all, some of them repeatedly.

    The first `count` by the fractional part of multiples of the golden ratio: evenly spaced, and never along columns.
    """
    total = len(tokens)
    fraction = (torch.arange(total, dtype=torch.float64) * GOLDEN_RATIO) % 1
    chosen = fraction.argsort()[:count].sort().values
    return tokens[chosen[torch.arange(count) % len(chosen)].to(tokens.device)]


def _votes(voters: Tensor, candidates: Tensor, own: int) -> Tensor:
    """(N,): how a picture's voters (V, D) share out one vote among N pictures with their candidates (N, K, D)."""
    cosines = (voters @ candidates.flatten(0, 1).T).unflatten(1, candidates.shape[:2]).amax(2)  # (V, N)
    cosines[:, own] = -torch.inf
    return (cosines / TEMPERATURE).softmax(dim=1).mean(0)


def _nearest(similarity: np.ndarray, neighbours: int) -> np.ndarray:
    """(., 2): each picture with its most similar ones; of equals the earlier ones."""
    views = len(similarity)
    others = similarity.copy()
    np.fill_diagonal(others, -np.inf)
    count = min(neighbours, views - 1)
    best = np.argsort(-others, axis=1, kind="stable")[:, :count]
    return np.stack([np.repeat(np.arange(views), count), best.reshape(-1)], axis=-1)


def _spanning_tree(similarity: np.ndarray) -> np.ndarray:
    """(N - 1, 2): the tree of the highest total similarity."""
    from scipy.sparse.csgraph import minimum_spanning_tree

    # Weights above 0, as a dense graph has no edge where its weight is 0; the smaller index first.
    weights = np.triu(1 + similarity.max() - (similarity + similarity.T) / 2, 1)
    return np.stack(minimum_spanning_tree(weights).nonzero(), axis=-1).astype(np.int64)
