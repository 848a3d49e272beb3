"""What of a recording could not be used: counted by reason, with the first few places."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any

PLACES_KEPT = 5
_NUMBER = re.compile(r"\d+")


@dataclass
class Skipped:
    """Images that were not used, for one reason."""

    count: int = 0
    places: list[str] = field(default_factory=list)
    """The first few."""

    def __str__(self) -> str:
        return ", ".join(self.places) + (", …" if self.count > len(self.places) else "")


class Skips:
    """Skipped images by reason. Reasons that differ in numbers only are one, told as it was met first."""

    def __init__(self) -> None:
        self.by_reason: dict[str, Skipped] = {}
        self._reasons: dict[str, str] = {}

    def add(self, reason: str, place: str, count: int = 1) -> None:
        """More images, skipped for `reason`."""
        known = self._reasons.setdefault(_NUMBER.sub("", reason), reason)
        skipped = self.by_reason.setdefault(known, Skipped())
        skipped.count += count
        if len(skipped.places) < PLACES_KEPT:
            skipped.places.append(place)

    def counts(self) -> dict[str, int]:
        """Images by reason."""
        return {reason: skipped.count for reason, skipped in self.by_reason.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {reason: asdict(skipped) for reason, skipped in self.by_reason.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Skips:
        """The inverse of `to_dict`."""
        skips = cls()
        for reason, value in values.items():
            skips.by_reason[reason] = Skipped(**value)
            skips._reasons[_NUMBER.sub("", reason)] = reason
        return skips
