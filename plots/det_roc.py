"""The DET curve and the ROC curve."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from plots.style import SMALL, WIDTH, add_legend, column_figure, curve_style, format_percent, line_handle, style_axes

if TYPE_CHECKING:  # matplotlib is slow to import, so functions import it
    from matplotlib.figure import Figure

FAR, FRR, ACCEPTED = "False acceptance rate of spoof (%)", "Miss rate of bona fide (%)", "Bona fide accepted (%)"
Curves = Mapping[str, tuple[np.ndarray, np.ndarray]]  # system → (frr, far): fractions, both (thresholds,)


def det_curve(curves: Curves, eer: Mapping[str, float]) -> "Figure":
    """Detection error trade-off on probit axes (Martin et al., Eurospeech 1997), with EERs marked on the diagonal.

    Points outside the axes are cut (a rate of 0 is infinitely far). A system without errors has no curve: the legend
    says so, and a hollow mark stands in the corner.
    """
    from scipy.special import ndtr, ndtri

    labels = [f"{name}: EER {format_percent(eer[name])} %" + ("" if eer[name] else ", no curve") for name in curves]
    figure, axes = column_figure(WIDTH - 0.25, FAR, FRR)
    low, high, ticks = _det_axis([100 * eer[name] for name in curves])
    for set_scale in (axes.set_xscale, axes.set_yscale):
        set_scale("function", functions=(lambda percent: ndtri(percent / 100), lambda z: 100 * ndtr(z)))
    axes.set(xlim=(low, high), ylim=(low, high), xticks=ticks, yticks=ticks)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.plot([low, high], [low, high], color="0.6", linewidth=0.6)
    handles = []
    for index, (name, rates) in enumerate(curves.items()):
        # Rates of 0 and 1 would break the line; a tenth of the lower limit is far enough outside.
        frr, far = (np.clip(100 * np.asarray(rate), low / 10, 100 - low / 10) for rate in rates)
        axes.plot(far, frr, **curve_style(index))
        point, look = np.clip(100 * eer[name], low, high), curve_style(index, marker=True)
        if not eer[name]:
            look |= {"linestyle": "none", "markerfacecolor": "white", "markeredgecolor": look["color"]}
        axes.plot([point], [point], **look, clip_on=False, zorder=5)
        handles.append(line_handle(**look))
    if 0 in eer.values():
        axes.annotate("0 %: no errors", (low, low), (6, 5), textcoords="offset points", fontsize=SMALL)
    add_legend(figure, handles, labels)
    return figure


def _det_axis(eers: Sequence[float]) -> tuple[float, float, list[float]]:
    """(lower limit, upper limit, ticks) of both DET axes in percent, wide enough for the EERs in percent."""
    from scipy.special import ndtri

    known = [eer for eer in eers if eer > 0]
    low = next((limit for limit in (0.1, 0.01) if limit <= min(known, default=1) / 10), 0.001)
    high = 50.0 if max(known, default=0) <= 25 else 99.0
    ticks = [low]
    for tick in (0.01, 0.1, 1, 2, 5, 10, 20, 40, 60, 80, 90, 95, 99):
        z = ndtri(np.array([ticks[-1], tick, low, high]) / 100)
        if tick <= high and z[1] - z[0] > 0.095 * (z[3] - z[2]):
            ticks.append(tick)
    return low, high, ticks


def roc_curve(curves: Curves, auc: Mapping[str, float]) -> "Figure":
    """Receiver operating characteristic: bona fide accepted over spoof accepted, with an inset on a logarithmic axis.

    The inset lies below the diagonal. If a curve passes there, it becomes a second panel instead.
    """
    labels = [f"{name}: AUC {auc[name]:.4f}" for name in curves]
    percent = [(100 * np.asarray(far), 100 - 100 * np.asarray(frr)) for frr, far in curves.values()]
    # A curve never falls, so the inset's place is free if the curve is above its corner (46, 50).
    free = all(np.interp(46, np.sort(x), np.sort(y)) > 50 for x, y in percent)
    figure, axes = column_figure((1 if free else 1.8) * (WIDTH - 0.25), FAR, ACCEPTED)
    if free:
        inset = axes.inset_axes([0.51, 0.18, 0.36, 0.27])
        style_axes(inset, "", "")
        inset.set_title("FAR on a log scale", fontsize=SMALL, loc="right", pad=2)
        inset.set_xlabel("FAR (%)", fontsize=SMALL, labelpad=1)
        inset.yaxis.tick_right()  # on the left its numbers would lie on the diagonal
    else:
        axes.set_subplotspec(figure.add_gridspec(2, 1, height_ratios=(4, 3))[0])
        inset = figure.add_subplot(axes.get_gridspec()[1])
        style_axes(inset, FAR, ACCEPTED)
    axes.set(xlim=(0, 100), ylim=(0, 100))
    axes.plot([0, 100], [0, 100], color="0.6", linewidth=0.6)
    for index, (x, y) in enumerate(percent):
        axes.plot(x, y, **curve_style(index))
        inset.plot(np.maximum(x, 1e-6), y, **curve_style(index))  # a rate of 0 has no logarithm
    lowest = min((np.interp(0.01, np.sort(x), np.sort(y)) for x, y in percent), default=0)
    inset.set(xscale="log", xlim=(0.01, 100), ylim=(min(10 * (lowest // 10), 90), 100), xticks=[0.01, 0.1, 1, 10, 100])
    inset.xaxis.set_major_formatter("{x:g}")
    inset.minorticks_off()
    add_legend(figure, [line_handle(**curve_style(index)) for index in range(len(labels))], labels)
    return figure
