"""Figures of chapter 09, how many components."""

from __future__ import annotations

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from scipy.stats import chi2

from gmmedu import LikelihoodRatioTest, Selection, plot

#: Curves that stand for no component.
_HUES = tuple(plot.PALETTE[k] for k in (6, 3, 7))


def criteria(selection: Selection) -> Figure:
    """AIC, BIC and ICL of one family against K, the lowest point of each marked."""
    figure, ax = plt.subplots(figsize=(4.7, 3.4))
    for name, hue in zip(("aic", "bic", "icl"), _HUES, strict=True):
        (curve,) = selection.values(name).values()
        counts, values = list(curve), list(curve.values())
        ax.plot(counts, values, ".-", color=hue)
        lowest = int(np.nanargmin(values))
        ax.plot(counts[lowest], values[lowest], "o", ms=11, mfc="none", mec=hue)
        ax.annotate(
            name.upper(),
            (counts[-1], values[-1]),
            (6, 0),
            textcoords="offset points",
            color=hue,
            va="center",
        )
    ax.set(xlabel="number of components K", ylabel="criterion", xlim=(0.7, counts[-1] + 0.9))
    ax.xaxis.get_major_locator().set_params(integer=True)
    return figure


def ratios(test: LikelihoodRatioTest) -> Figure:
    """Likelihood ratios of samples, a chi-square density, and the ratio of the data."""
    figure, ax = plt.subplots(figsize=(4.7, 3.0))
    samples = test.samples[~test.samples.isnan()].cpu().numpy()
    top = 1.05 * max(float(samples.max()), test.statistic)
    extra = test.alternative.num_free_parameters - test.null.num_free_parameters
    ax.hist(samples, bins=np.linspace(0, top, 25), density=True, color=plot.GRAY, alpha=0.6)
    t = np.linspace(0.02, top, 300)
    ax.plot(t, chi2.pdf(t, extra), color=_HUES[0])
    ax.annotate("chi-square", (2.2, chi2.pdf(2.2, extra)), (4.5, 0.2), color=_HUES[0])
    ax.axvline(test.statistic, color=_HUES[1])
    ax.set(xlabel="likelihood ratio t", ylabel="density", xlim=(0, top))
    return figure
