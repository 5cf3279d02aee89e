"""What can go wrong when a schedule is read or sampled.

ScheduleError    a scheduler config, a sampler's name, a step count or an array makes no sense: expected, got
"""

from __future__ import annotations


class ScheduleError(ValueError):
    """A schedule that cannot be built, or cannot be sampled as asked."""
