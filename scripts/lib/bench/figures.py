"""Plots as SVG files that are the same for the same data."""

import io
import re


def begin(title, across, up, width=8.0, height=4.5):
    """A new figure and its axes. Only here and below matplotlib is needed."""
    figure, (axes,) = grid(1, 1, across, up, width, height)
    axes.set_title(title)
    return figure, axes


def grid(number, columns, across, up, width=8.0, height=2.6):
    """A new figure with so many panels, and a list of their axes; the height is that of a row."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    rows = -(-number // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(width, height * rows), layout="constrained", squeeze=False)
    panels = [panel for row in axes for panel in row]
    for panel in panels[:number]:
        panel.grid(alpha=0.3)
    for panel in panels[number:]:
        panel.set_visible(False)
    for row in axes:
        row[0].set_ylabel(up)
    for panel in axes[-1]:
        panel.set_xlabel(across)
    return figure, panels[:number]


def save(figure, path):
    import matplotlib
    from matplotlib import pyplot

    with matplotlib.rc_context({"svg.hashsalt": "tcpgw", "svg.fonttype": "none"}):
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    path.write_text(re.sub(r"[ \t]+$", "", drawn.getvalue(), flags=re.M))
