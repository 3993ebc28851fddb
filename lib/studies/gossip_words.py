"""Numbers of gossip runs as words, for captions and conclusions that hold for any parameters."""

import math

from lib.figures.gossip import bound, mean_accuracy, ratio, speed_ups
from lib.gossip import measures

MISSING = "not within the run"


def number(value, digits=3, *, at_least=False):
    """A number with some significant digits, or words for one that does not exist.

    Examples
    --------
    >>> number(7.871), number(7.871, 2, at_least=True), number(float("nan"))
    ('7.87', 'at least 7.9', 'not within the run')
    >>> number(1234.6)
    '1235'
    """
    if not math.isfinite(value):
        return MISSING
    text = f"{value:.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"
    return f"at least {text}" if at_least else text


def listing(values):
    """A dict of names to texts or numbers as ``name: value; name: value``.

    Examples
    --------
    >>> listing({"gossip": float("nan"), "isolated": 145.0})
    'gossip: not within the run; isolated: 145'
    """
    return "; ".join(f"{name}: {value if isinstance(value, str) else number(value)}" for name, value in values.items())


def ticks(outcomes, level):
    """Ticks to a level of accuracy of each line of ``outcomes`` (:mod:`lib.figures.gossip`), as words."""
    return listing({name: measures.ticks_to(mean_accuracy(group), level) for name, group in outcomes.items()})


def final(outcomes):
    """Mean accuracy of each line at its last tick, as words."""
    return listing({name: mean_accuracy(group).iloc[-1] for name, group in outcomes.items()})


def times(outcomes, first, second, level):
    """Ticks to a level of the first line over those of the second, as words; a lower bound says that it is one."""
    value = ratio(outcomes, first, second, level=level)
    return number(value, 2, at_least=bool(bound(outcomes, first, second, level=level)))


def span(values, digits=3):
    """Smallest to largest of some numbers, and how many of them do not exist.

    Examples
    --------
    >>> span([99.0, 142.6, float("nan")])
    '99 to 143 (1 of 3 not within the run)'
    """
    values = list(values)
    found = [value for value in values if math.isfinite(value)]
    if not found:
        return MISSING
    smallest, largest = number(min(found), digits), number(max(found), digits)
    missing = len(values) - len(found)
    text = smallest if smallest == largest else f"{smallest} to {largest}"
    return text + (f" ({missing} of {len(values)} {MISSING})" if missing else "")


def by_value(groups, level):
    """Speed-up by correction for each value of a sweep (:func:`lib.figures.gossip.speed_ups`), as words."""
    rows = speed_ups(groups, level=level).iterrows()
    return listing({f"{value:g}": number(row["speed-up"], 2, at_least=bool(row["bound"])) for value, row in rows})
