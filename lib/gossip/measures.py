"""Numbers that sum up a simulation: plateau delay, ticks to an accuracy, what happens when weights go.

The plateau delay is the paper's central quantity: how long the accuracy stays flat before it rises rapidly.
"""

import math

import torch

from lib import seeds
from lib.errors import InputError
from lib.weights import is_weight


def plateau_delay(accuracy, *, chance=0.1, after=120, rises=10):
    """Tick of the rapid rise, by the rule of the paper's code.

    Of the ``rises`` largest rises of the mean accuracy between recordings, in falling order, the first that
    lies after tick ``after``. A curve that stays near chance has no rapid rise, so it has no delay (ours: the
    paper's rule names the tick of some noise).

    Parameters
    ----------
    accuracy : pandas.Series
        Mean accuracy by tick, as ``Simulation.accuracy``.
    chance : float
        Accuracy of guessing, 1 / classes. A curve leaves it when it reaches three times as much.

    Returns
    -------
    float
        A tick, or nan where the curve never leaves chance or none of its rises lies so late.
    """
    if not accuracy.max() >= 3 * chance:
        return math.nan
    rise = accuracy.diff().dropna().sort_values(ascending=False, kind="stable").head(rises)
    late = [tick for tick, size in rise.items() if tick > after and size > 0]
    return float(late[0]) if late else math.nan


def ticks_to(accuracy, level):
    """First tick at which the mean accuracy reaches a level, linear between records; nan if it never does."""
    before = None
    for tick, value in accuracy.items():
        if value >= level:
            if before is None:
                return float(tick)
            return before[0] + (level - before[1]) / (value - before[1]) * (tick - before[0])
        before = (tick, value)
    return math.nan


def remove_weights(state, keep, *, seed):
    """Set a random part of each weight tensor to 0; each weight stays with probability ``keep``."""
    _check_fraction(keep=keep)
    generator = seeds.generator(seed, "remove")
    return {
        name: tensor * (torch.rand(tensor.shape, generator=generator).to(tensor.device) < keep)
        if is_weight(tensor) else tensor
        for name, tensor in state.items()
    }  # fmt: skip


def scale_weights(state, ratio):
    """Multiply every weight tensor by a ratio."""
    _check_fraction(ratio=ratio)
    return {name: tensor * ratio if is_weight(tensor) else tensor for name, tensor in state.items()}


def _check_fraction(**values):
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise InputError(f"{name}={value}: must be in [0, 1]")
