"""Smallest steps to a hyperplane that stay in the pixel box, one per norm.

Croce & Hein 2020, "Minimally distorted Adversarial Examples with a Fast Adaptive Boundary Attack"
(arXiv 1907.02044), section 3 and appendix A. There each norm sorts the coordinates; here none does:

Seen from a point, the plane ``<w, z> = b`` lies at a gap of ``|<w, point> - b|`` and every coordinate can
help to close it by moving one way only, as far as the box leaves ``room``. For Linf and L2 the best
moves are ``min(level, room)`` and ``min(level * |w|, room)`` for one number ``level`` per sample. What they
close is a piecewise linear, concave and rising function of the level, so Newton's iteration from
below never passes the root and ends on the exact one after a handful of rounds. For L1 the best
coordinates are those of largest ``|w|``, and few are needed, so they are selected, not sorted.

Elementwise masks (``torch.where`` and friends) are many times slower than arithmetic on a CPU; hence the
arithmetic with signs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["hyperplane_along", "hyperplane_l1", "hyperplane_l2", "hyperplane_linf"]

# what L2 and L1 regard as no slope at all: dividing by it would only bring in noise
_FLAT = 1e-8
# keeps the time in which a coordinate that does not move meets the box finite
_TINY = 1e-30
# Newton rounds before the rows that have not settled are sorted
_ROUNDS = 32
# which share of the coordinates the L1 step tries first (at most _FEW), and how fast that grows; up to a
# 64th torch selects with a heap, which is several times faster
_SHARE, _FEW, _GROWTH = 64, 64, 8


def hyperplane_linf(points: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """The step smallest in its largest entry: all coordinates move alike until they meet the box.

    Args:
        points: in [0, 1], ``[n, d]``. w: ``[n, d]``. b: ``[n]``.

    Returns:
        The step ``[n, d]``; where the box does not reach the plane, the closest approach.
    """
    gap, direction = _facing(points, w, b)
    sign = direction.sign()
    room = _room(points, sign)
    level = _level(direction.abs_(), room, gap)
    return torch.minimum(room, level[:, None]).mul_(sign)


def hyperplane_l2(points: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """The shortest step: coordinates move in proportion to ``w`` until they meet the box.

    Coordinates of ``|w|`` up to 1e-8 stay. Arguments and result as in `hyperplane_linf`.
    """
    gap, direction = _facing(points, w, b)
    # the flat coordinates stay, but count as if they did not: AutoAttack's reference has it so, and it
    # matters only where the whole gradient is about that small
    weight = direction.square()
    direction = F.hardshrink(direction, _FLAT)
    sign = direction.sign()
    slope = direction.abs_()
    room = _room(points, sign)
    level = _level(weight, room / slope.clamp(min=_FLAT), gap)
    # 0 * inf would be no number
    level = level.clamp(max=torch.finfo(level.dtype).max)
    return slope.mul_(level[:, None]).minimum(room).mul_(sign)


def hyperplane_l1(points: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """The step of smallest sum: the coordinates of largest ``|w|`` use up their room, one after another.

    Coordinates of ``|w|`` up to 1e-8 stay. Arguments and result as in `hyperplane_linf`.
    """
    gap, direction = _facing(points, w, b)
    direction = F.hardshrink(direction, _FLAT)
    sign = direction.sign()
    slope = direction.abs_()
    room = _room(points, sign)
    # a coordinate without room closes nothing, however steep
    slope.mul_(room.sign())
    beyond = (slope * room).sum(dim=1) <= gap
    step = sign * room * beyond[:, None].to(room.dtype)
    rows = (~beyond).nonzero().squeeze(1)
    count = min(-(-w.shape[1] // _SHARE), _FEW)
    while len(rows):
        steepest, moves, settled = _greedy(slope[rows], room[rows], gap[rows], min(count, w.shape[1]))
        done = rows[settled]
        step[done] = torch.zeros_like(step[done]).scatter_(1, steepest[settled], moves[settled]).mul_(sign[done])
        rows = rows[~settled]
        count *= _GROWTH
    return step


def hyperplane_along(steepest: Callable[[Tensor], Tensor], points: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """A step in the steepest direction, in which every coordinate moves until it meets the box.

    That is the smallest step where the steepest direction tells how fast coordinates move together, as in Linf, L2 and
    their weighted forms.

    Args:
        steepest: from gradients ``[n, ...]`` to directions, which have the signs of the gradients.
        points: in [0, 1], ``[n, ...]``. w: ``[n, ...]``. b: ``[n]``.

    Returns:
        The step ``[n, ...]``; where the box does not reach the plane, the closest approach.
    """
    gap, facing = _facing(points.flatten(1), w.flatten(1), b)
    direction = steepest(facing.view_as(points)).flatten(1)
    sign, speed = direction.sign(), direction.abs()
    room = _room(points.flatten(1), sign)
    level = _level(speed * facing.abs(), room / speed.clamp(min=_TINY), gap)
    # 0 * inf would be no number
    level = level.clamp(max=torch.finfo(level.dtype).max)
    return speed.mul_(level[:, None]).minimum(room).mul_(sign).view_as(points)


def _facing(points: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The gap ``[n]`` to the plane, never negative, and ``w`` turned to point across it: zero from a point on it."""
    above = (w * points).sum(dim=1) - b
    return above.abs(), w * above.sign_().neg_()[:, None]


def _room(points: Tensor, sign: Tensor) -> Tensor:
    """How far each coordinate can move in the direction of ``sign`` (1/2 where that is 0)."""
    return sign.mul(0.5).add_(0.5).addcmul_(sign, points, value=-1)


def _level(weight: Tensor, knot: Tensor, amount: Tensor) -> Tensor:
    """The ``level [n]`` at which ``sum weight * min(knot, level)`` is ``amount``; inf where it never is.

    Knots are not negative.
    """
    level = torch.zeros_like(amount)
    # fresh memory costs a CPU far more than the arithmetic in it
    space = torch.empty_like(knot)
    slope, missing = _slope(weight, knot, level, space), amount
    for turn in range(_ROUNDS):
        # where all have met the box nothing is reached any more, unless rounding alone is missing
        level = torch.fmax(level, level + missing / slope)
        before, slope = slope, _slope(weight, knot, level, space)
        # no further coordinate has met the box, so this was the right linear piece; not tested in the first round, when
        # it never is, because the test makes a GPU wait
        if turn and torch.equal(slope, before):
            return level
        missing = amount - torch.minimum(knot, level[:, None], out=space).mul_(weight).sum(dim=1)
        if turn:
            missing.mul_(slope != before)  # what has settled stays, so that no row depends on those beside it
    rows = (slope != before).nonzero().squeeze(1)
    level[rows] = _level_by_sorting(weight[rows], knot[rows], amount[rows])
    return level


def _slope(weight: Tensor, knot: Tensor, level: Tensor, space: Tensor) -> Tensor:
    """How fast the sum rises above ``level``: the weights of those that have not met the box, ``[n]``."""
    return torch.gt(knot, level[:, None], out=space).mul_(weight).sum(dim=1)


def _level_by_sorting(weight: Tensor, knot: Tensor, amount: Tensor) -> Tensor:
    """`_level` in one go, at the price of a sort: for knots that Newton meets one at a time."""
    knots, order = knot.sort(dim=1)
    weights = weight.gather(1, order)
    filled = (weights * knots).cumsum(dim=1)
    slopes = weights.flip(1).cumsum(dim=1).flip(1)
    # the sum when the level is at each knot
    sums = filled + F.pad(slopes[:, 1:], (0, 1)) * knots
    piece = (sums <= amount[:, None]).sum(dim=1, keepdim=True)
    before = F.pad(filled, (1, 0)).gather(1, piece).squeeze(1)
    slope = F.pad(slopes, (0, 1)).gather(1, piece).squeeze(1)
    return torch.where(slope > 0, (amount - before) / slope, torch.inf)


def _greedy(slope: Tensor, room: Tensor, gap: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Fill the ``count`` steepest coordinates in turn.

    Returns:
        Their positions and moves ``[n, count]``, and whose gap that closes ``[n]``.
    """
    steep, steepest = slope.topk(count, dim=1)
    room = room.gather(1, steepest)
    closed = (steep * room).cumsum(dim=1)
    left = gap[:, None] - F.pad(closed[:, :-1], (1, 0))
    moves = (left / steep.clamp(min=_FLAT)).clamp(min=0).minimum(room)
    settled = closed[:, -1] >= gap if count < slope.shape[1] else torch.ones_like(gap, dtype=torch.bool)
    return steepest, moves, settled
