"""How often a run is saved."""

import datetime
from typing import NamedTuple


class Pace(NamedTuple):
    """How often a snapshot is made, and how many are kept.

    Attributes:
        every: so many outer steps, or so much time.
        keep: the last so many stay.
    """

    every: int | datetime.timedelta
    keep: int

    def is_due(self, steps: int, seconds: float, *, busy: bool) -> bool:
        """Whether so many steps and seconds after the last one it is time for the next.

        One that is still being written is waited for where steps are counted, but not where time is.
        """
        if isinstance(self.every, datetime.timedelta):
            return seconds >= self.every.total_seconds() and not busy
        return steps >= self.every

    @property
    def seconds(self) -> float:
        """How often an estimate that goes on is kept: where outer steps are counted, every minute."""
        return self.every.total_seconds() if isinstance(self.every, datetime.timedelta) else 60.0
