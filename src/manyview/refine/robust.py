"""Robust least squares, for numbers of which some are simply wrong.

Every solution starts with sums of distances, which no single number can pull far, and ends with Tukey's biweight, which
leaves out what lies far off (re-weighted least squares: Holland and Welsch 1977).
"""

from __future__ import annotations

import numpy as np

SMALLEST_SPREAD = 1e-4  # of logarithms; residuals below it count as equally small


def spread(residuals: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Standard deviation of normal residuals (P,) from their (weighted) median size."""
    sizes = np.abs(residuals)
    order = np.argsort(sizes)
    reached = np.cumsum(np.ones(len(sizes)) if weight is None else weight[order])
    median = sizes[order][np.searchsorted(reached, reached[-1] / 2)]
    return max(1.4826 * float(median), SMALLEST_SPREAD)


def robust_solve(
    rows: np.ndarray, target: np.ndarray, weight: np.ndarray, *, penalty: np.ndarray | None = None, steps: int = 8
) -> np.ndarray:
    """x (K,) for which rows (P, K) @ x is nearest to target (P,).

    Args:
        weight: (P,) above 0.
        penalty: (K, K) quadratic form of x, as a share of the sum of weights.
    """
    ridge = np.zeros((rows.shape[1],) * 2) if penalty is None else penalty
    ridge = ridge + 1e-9 * np.eye(len(ridge))
    current = weight
    solution = np.zeros(rows.shape[1])
    for step in range(steps):
        root = np.sqrt(current)
        weighted = rows * root[:, None]  # a product with its own transpose takes half the time
        solution = np.linalg.solve(weighted.T @ weighted + ridge * current.sum(), weighted.T @ (root * target))
        current = _reweighted(target - rows @ solution, weight, late=step >= steps // 2)
    return solution


def robust_log_solve(
    basis: np.ndarray, target: np.ndarray, weight: np.ndarray, solution: np.ndarray, *, steps: int = 16
) -> np.ndarray:
    """x (K,) for which log(basis (P, K) @ x) is nearest to target (P,); by Gauss-Newton from a given one.

    Residuals of logarithms treat too near and too far alike. Relative ones would give points that are much too far, as
    those behind edges are, the more say the more they are wrong.

    Args:
        solution: where to start; basis @ solution is above 0 for all rows, and stays so.
    """
    for step in range(steps):
        values = basis @ solution
        rows, residuals = basis / values[:, None], target - np.log(values)
        weighted = rows * _reweighted(residuals, weight, late=step >= steps // 2)[:, None]
        curvature = weighted.T @ rows
        change = np.linalg.solve(curvature + 1e-9 * np.diag(np.diag(curvature)), weighted.T @ residuals)
        solution = solution + _shortened(change, basis, solution)
    return solution


def _reweighted(residuals: np.ndarray, weight: np.ndarray, *, late: bool) -> np.ndarray:
    """For sums of distances at first, for Tukey's biweight later, which is 0 beyond 4.685 standard deviations."""
    share = np.abs(residuals) / spread(residuals, weight)
    if late:
        return weight * (1 - np.clip(share / 4.685, 0, 1) ** 2) ** 2
    return weight / np.maximum(share, 0.1)


def _shortened(change: np.ndarray, basis: np.ndarray, solution: np.ndarray) -> np.ndarray:
    """The change, halved until no row of basis @ x falls below a tenth of what it was; 0 if that takes too long."""
    least = 0.1 * (basis @ solution)
    for _ in range(12):
        if (basis @ (solution + change) > least).all():
            return change
        change = change / 2
    return np.zeros_like(change)
