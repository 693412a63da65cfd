"""Plots as SVG files that are the same for the same data."""

import io
import re


def begin(title, across, up, width=8.0, height=4.5):
    """A new figure and its axes. Only here and below matplotlib is needed."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(width, height), layout="constrained")
    axes.set(title=title, xlabel=across, ylabel=up)
    axes.grid(alpha=0.3)
    return figure, axes


def save(figure, path):
    import matplotlib
    from matplotlib import pyplot

    with matplotlib.rc_context({"svg.hashsalt": "tcpgw", "svg.fonttype": "none"}):
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    path.write_text(re.sub(r"[ \t]+$", "", drawn.getvalue(), flags=re.M))
