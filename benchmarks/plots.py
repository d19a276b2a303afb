"""How something grows: one panel for each series, both axes logarithmic."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Lines = Mapping[str, tuple[str, Callable[[Any], float]]]  # label → marker, value of a point


def growth_plot(path: Path, title: str, found: Mapping[str, Sequence[tuple[int, Any]]], lines: Lines) -> None:
    """Writes the picture. found: name of a series → (what grows, what was measured)."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(found), figsize=(4 * len(found), 3.6), layout="constrained")
    for axis, (name, points) in zip(axes, found.items(), strict=True):
        where = [n for n, _ in points]
        for label, (marker, value) in lines.items():
            axis.loglog(where, [value(point) for _, point in points], f"{marker}-", label=label)
        axis.set_xticks(where, [str(n) for n in where])
        axis.minorticks_off()
        axis.set_xlabel(name)
        axis.grid(visible=True, which="both", alpha=0.3)
    axes[0].legend(fontsize="small")
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
