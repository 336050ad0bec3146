"""Figures of notebook 41: when fewer operations become less time."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from lib.study.costs.points import BORN, WHOLE
from lib.study.costs.timing import Ceilings
from lib.study.pages.looks import FONT, look
from lib.study.pages.n40_figures import LINES, stack
from lib.study.pages.n40_operations import label


def time_bars(frame: pd.DataFrame, batch: int) -> Figure:
    """Draw `lib.study.pages.n41_times.part_times`: milliseconds to the first token by part, an interval on each whole."""
    wide = frame.pivot(index="label", columns="part", values="median")
    order = list(dict.fromkeys(frame["label"]))
    wide = wide.loc[order]
    whole = frame.groupby("label", sort=False)[["median", "low", "high"]].sum().loc[order]
    figure, ax = plt.subplots(figsize=(7.6, 1.4 + 0.36 * len(order)), layout="constrained")
    stack(ax, wide)
    errors = np.abs(whole[["low", "high"]].to_numpy().T - whole["median"].to_numpy())
    ax.errorbar(
        whole["median"], range(len(order)), xerr=errors, fmt="none", ecolor="0.1", capsize=3, linewidth=1.2
    )
    full = whole.loc[label(WHOLE)]
    for place, row in enumerate(whole.itertuples()):
        if row.Index == label(WHOLE):
            continue
        ax.text(
            row.high + 0.015 * whole["high"].max(),
            place,
            f"{full['median'] / row.median:.1f}× as fast",
            va="center",
        )
    methods = whole.drop(index=[label(WHOLE), label(BORN)], errors="ignore")
    faster = int((methods["high"] < full["low"]).sum())
    ax.set(
        xlabel=f"milliseconds to the first token, batch {batch} (lower is better)",
        ylabel="",
        xlim=(0, 1.28 * whole["high"].max()),
        title=f"Batch {batch}: {faster} of {len(methods)} methods are surely faster than no pruning",
    )
    handles, names = ax.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False)
    return figure


def gain_lines(frame: pd.DataFrame) -> Figure:
    """Draw `lib.study.pages.n41_times.prefill_gain`: times faster against times fewer operations, a line a batch."""
    figure, ax = plt.subplots(figsize=(7.6, 4.2), layout="constrained")
    batches = sorted(set(frame["batch"]))
    for number, batch in enumerate(batches):
        colour, marker, dash = LINES[number % len(LINES)]
        mine = frame[frame["batch"] == batch].sort_values("fewer")
        at = mine["fewer"] + 0.06 * (number - (len(batches) - 1) / 2)  # intervals side by side
        errors = np.abs(mine[["low", "high"]].to_numpy().T - mine["median"].to_numpy())
        ax.errorbar(at, mine["median"], yerr=errors, fmt="none", ecolor=colour, capsize=2.5, linewidth=1.1)
        ax.plot(
            at,
            mine["median"],
            color=colour,
            marker=marker,
            linestyle=dash,
            linewidth=1.6,
            label=f"batch {batch}",
        )
    ends = np.array([1.0, 1.05 * frame["fewer"].max()])
    ax.plot(ends, ends, color="0.3", linestyle=(0, (1, 2)), label="as many times faster as fewer")
    ax.axhline(1, color="0.6", linewidth=1)
    ticks = sorted(set(frame["fewer"].round(2)))
    kept = frame.drop_duplicates("kept").sort_values("fewer")
    ax.set_xticks(
        ticks,
        [f"{fewer:.1f}×\n{count} kept" for fewer, count in zip(kept["fewer"], kept["kept"], strict=True)],
    )
    ax.minorticks_off()
    far = frame[frame["kept"] == frame["kept"].min()]
    ax.set(
        xlabel="times fewer operations in the prefill",
        ylabel="times faster",
        title=f"{far['fewer'].max():.1f} times fewer operations make the prefill "
        f"{far['median'].min():.1f} to {far['median'].max():.1f} times faster",
    )
    ax.legend(loc="upper left", frameon=False)
    sns.despine(ax=ax)
    return figure


def answer_lines(frame: pd.DataFrame, measured: pd.DataFrame) -> Figure:
    """Draw `lib.study.pages.n41_times.break_even` by answer length, a panel a batch; hollow: whole answers as measured."""
    batches = sorted(set(frame["batch"]))
    figure, axes = plt.subplots(
        1, len(batches), figsize=(7.6, 3.9), sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    names = list(dict.fromkeys(frame["method"]))
    looks = {
        name: (("0.35", "_", "--") if name == BORN else (look(name).colour, look(name).marker, "-"))
        for name in names
    }
    for ax, batch in zip(axes.flat, batches, strict=True):
        for number, name in enumerate(names):
            colour, marker, dash = looks[name]
            mine = frame[(frame["batch"] == batch) & (frame["method"] == name)]
            ax.plot(
                mine["new_tokens"],
                mine["median"],
                color=colour,
                linestyle=dash,
                linewidth=1.7,
                label=label(name),
            )
            ax.fill_between(
                mine["new_tokens"], mine["low"], mine["high"], color=colour, alpha=0.10, linewidth=0
            )
            seen = measured[(measured["batch"] == batch) & (measured["method"] == name)]
            at = seen["new_tokens"] * 1.12 ** (number - 1)
            errors = np.abs(seen[["low", "high"]].to_numpy().T - seen["median"].to_numpy())
            ax.errorbar(
                at,
                seen["median"],
                yerr=errors,
                fmt=marker,
                color=colour,
                mfc="white",
                capsize=2.5,
                markersize=6,
                linewidth=1.1,
            )
        ax.axhline(1, color="0.3", linewidth=1)
        ax.set_xscale("log", base=2)
        ax.set_xticks([1, 8, 64, 512], ["1", "8", "64", "512"])
        ax.minorticks_off()
        ax.set(title=f"batch {batch}", xlabel="new tokens (log scale)")
        sns.despine(ax=ax)
    axes.flat[0].set_ylabel("times faster than unpruned")
    handles, words = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, words, loc="outside lower center", ncols=len(names), frameon=False)
    mine = frame[(frame["batch"] == batches[-1]) & (frame["method"] == names[1])]
    figure.suptitle(
        f"{label(names[1])}, batch {batches[-1]}: {mine['median'].iloc[0]:.1f} times faster to the first token, "
        f"{mine['median'].iloc[-1]:.1f} over {mine['new_tokens'].iloc[-1]}",
        fontsize=FONT + 1,
    )
    return figure


def roofline_points(table: pd.DataFrame, peaks: Ceilings) -> Figure:
    """Draw `lib.study.pages.n41_tables.roofline_table` under the device's two ceilings, on logarithmic axes.

    One colour and marker a part and batch; the unpruned point of each is filled.
    """
    figure, ax = plt.subplots(figsize=(7.6, 4.4), layout="constrained")
    ridge = peaks.flops / peaks.bandwidth
    ends = np.array(
        [0.5 * min(ridge, table["FLOP a byte"].min()), 2 * max(ridge, table["FLOP a byte"].max())]
    )
    reach = np.sort(np.append(ends, ridge))
    roof = np.minimum(reach * peaks.bandwidth, peaks.flops) / 1e12
    ax.plot(reach, roof, color="0.2", linewidth=2)
    ax.text(ends[1], 1.06 * roof[-1], "arithmetic ceiling", ha="right", va="bottom")
    middle = np.sqrt(ends[0] * ridge)
    ax.text(1.15 * middle, 0.95 * middle * peaks.bandwidth / 1e12, "bandwidth ceiling", ha="left", va="top")
    for number, ((part, batch), mine) in enumerate(table.groupby(["part", "batch"], sort=False)):
        colour, marker, _ = LINES[number % len(LINES)]
        for whole, face in ((True, colour), (False, "white")):
            drawn = mine[(mine["method"] == label(WHOLE)) == whole]
            ax.plot(
                drawn["FLOP a byte"],
                drawn["TFLOP/s"],
                linestyle="none",
                marker=marker,
                markersize=7,
                color=colour,
                markerfacecolor=face,
                label=f"{part}, batch {batch}" if whole else None,
            )
    prefill = table[table["part"] == "prefill"]["share of ceiling"]
    steps = table[table["part"] == "decode step"]["share of ceiling"]
    ax.set(
        xscale="log",
        yscale="log",
        ylim=(None, 1.6 * roof[-1]),
        xlabel="operations a byte that must move (log scale)",
        ylabel="TFLOP/s reached (log scale)",
        title=f"Of what the device allows, prefills reach {prefill.min():.0%} to {prefill.max():.0%}, "
        f"decode steps {steps.min():.0%} to {steps.max():.0%}",
    )
    ax.legend(loc="lower right", frameon=False)
    sns.despine(ax=ax)
    return figure
