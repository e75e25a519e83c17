"""Latencies without a list of them: histograms of bounded size that can be added up, kept, and read by other programs.

They are Gil Tene's HDR histograms, of microseconds up to an hour.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

from hdrh.histogram import HdrHistogram

MOST_US = 3_600_000_000
DIGITS = 2
"""Values are known to one percent; a histogram takes 13 KiB, so that there can be one for every tenant and phase."""

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)


class Latencies:
    """One histogram."""

    def __init__(self) -> None:
        self._counts = HdrHistogram(1, MOST_US, DIGITS, word_size=4)

    def record(self, seconds: float, count: int = 1) -> None:
        """Count so many latencies; what is over an hour counts as an hour, what is below a microsecond as one."""
        self._counts.record_value(min(max(round(seconds * 1e6), 1), MOST_US), count)

    def add(self, other: Self) -> None:
        """Take in another one's."""
        self._counts.add(other._counts)

    @property
    def count(self) -> int:
        """How many there are."""
        return int(self._counts.total_count)

    def percentile_s(self, percentile: float) -> float:
        """Return the seconds that so many percent do not exceed; 0 if there are none."""
        if not self.count:
            return 0.0
        return float(min(self._counts.get_value_at_percentile(percentile), self._counts.max_value)) / 1e6

    def summary(self) -> dict[str, float]:
        """Return the percentiles that are shown, and how many there are."""
        found = self._counts.get_percentile_to_value_dict(list(PERCENTILES)) if self.count else {}
        most = self._counts.max_value
        figures = {f"p{p:g}_s": round(min(found.get(p, 0), most) / 1e6, 6) for p in PERCENTILES}
        return {"count": self.count, **figures, "max_s": round(most / 1e6, 6)}

    def encoded(self) -> str:
        """Return it in the compressed form that HDR histograms have in every language."""
        return str(self._counts.encode().decode())

    @classmethod
    def decoded(cls, text: str) -> Self:
        """Return what `encoded` wrote."""
        found = cls()
        found._counts.decode_and_add(text.encode())
        return found


def merged(parts: Iterable[Latencies]) -> Latencies:
    """Return all of them as one."""
    whole = Latencies()
    for part in parts:
        whole.add(part)
    return whole


def write_histograms(path: Path, histograms: Mapping[str, Latencies]) -> None:
    """Write histograms by their tags as a histogram log (version 1.2), which is read by every HDR tool."""
    lines = [
        "#[Histogram log format version 1.2]",
        '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"',
    ]
    for tag, each in sorted(histograms.items()):
        if each.count:
            lines.append(f"Tag={tag},0.000,0.000,{each.percentile_s(100):.6f},{each.encoded()}")
    path.write_text("\n".join(lines) + "\n", "utf-8")


def read_histograms(path: Path) -> dict[str, Latencies]:
    """Return what `write_histograms` wrote, by tag; those of one tag are added up."""
    found: dict[str, Latencies] = {}
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("Tag="):
            tag, *_, encoded = line.removeprefix("Tag=").split(",")
            found.setdefault(tag, Latencies()).add(Latencies.decoded(encoded))
    return found
