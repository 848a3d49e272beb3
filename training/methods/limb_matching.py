"""Which limb of a drawn figure each slot stands for while it learns, where limbs look alike.

No drawing says which of such limbs is the first. So the network may choose: the limbs go to the slots in the order
that costs least. It finds a rule of its own, by a limb's place in the picture or by how it looks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


@torch.no_grad()
def joint_costs(
    log_heat: Tensor, target: Tensor, presence: Tensor, present: Tensor, weights: tuple[float, float]
) -> np.ndarray:
    """(N, K, K) cross-entropy of heatmap and presence of every slot (rows) as every joint (columns).

    log_heat and target (N, K, C) log-probabilities and targets, zero for what is not present; presence (N, K) logits,
    present (N, K) bool; weights: of heatmap and presence.
    """
    heat = -torch.bmm(log_heat, target.transpose(1, 2))
    logits, there = presence[:, :, None], present.to(presence)[:, None, :]
    seen = torch.nn.functional.softplus(logits) - logits * there
    return (weights[0] * heat + weights[1] * seen).double().cpu().numpy()


def best_order(
    costs: np.ndarray, present: np.ndarray, alike: Sequence[Sequence[np.ndarray]], turns: np.ndarray
) -> np.ndarray:
    """(N, K) int: for each figure and slot the joint that it stands for.

    costs (N, K, K) of `joint_costs`; present (N, K) bool. alike: of each figure, as `inner_limbs` gives them, the limbs
    that may change places. turns (N,) bool: whether a figure is a chain either end of which may be the first.
    """
    order = np.tile(np.arange(present.shape[1]), (len(present), 1))
    for figure, groups in enumerate(alike):
        for limbs in groups:
            cost = costs[figure][limbs[:, None], limbs[None]].sum(axis=-1)
            order[figure, limbs] = limbs[linear_sum_assignment(cost)[1]]
    for figure in np.flatnonzero(turns):
        chain = np.flatnonzero(present[figure])
        given, turned = (costs[figure][chain, joints].sum() for joints in (chain, chain[::-1]))
        if turned < given:
            order[figure, chain] = chain[::-1]
    return order
