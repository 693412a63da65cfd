"""Medians, how sure they are, and the order of runs."""

import random
import statistics

CONFIDENCE = 0.95
RESAMPLES = 2000


def median(values):
    return statistics.median(values)


def percentile(values, percent):
    """The value below which so many of the values are; between two of them, in proportion."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def interval(values, of=statistics.median):
    """[low, high] that holds the true median (or what `of` takes) with 95 % confidence, by resampling what was measured
    with a fixed seed. Fewer than six values cannot tell: then it is all that was seen."""
    values = list(values)
    if len(values) < 6:
        return [min(values), max(values)]
    dice = random.Random(1)
    medians = sorted(of(dice.choices(values, k=len(values))) for _ in range(RESAMPLES))
    tail = round((1 - CONFIDENCE) / 2 * RESAMPLES)
    return [medians[tail], medians[-1 - tail]]


def ratios(numerators, denominators):
    """Pair by pair: what disturbs the machine for a while disturbs both of a pair."""
    return [above / below for above, below in zip(numerators, denominators, strict=True)]


def summary(values):
    """Median, interval and number of runs, for the raw data's reader and for tables."""
    return {"median": median(values), "interval": interval(values), "runs": len(values)}


def interleaved(names, rounds):
    """(round, name) so that each round has every name once, in turn forwards and backwards: none is always first."""
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            yield number, name
