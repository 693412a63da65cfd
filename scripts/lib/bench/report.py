"""The report: every section's raw data, as Markdown."""

import json
from dataclasses import dataclass

from bench import facts
from bench.sections import all_sections

INTRODUCTION = """\
# Benchmarks

`scripts/bench` writes this page: it installs the other programs, builds a release, measures in network namespaces of one
machine, and writes the page, the plots and the raw data. A section that was not run again keeps its earlier data; each
section says when and where it was measured. Machines differ: compare the ratios, and not the absolute figures. Figures are
medians of interleaved runs. Brackets contain the interval that includes the true median with 95 % confidence (with fewer than six
runs: the smallest and the largest value).
"""


@dataclass(frozen=True)
class Target:
    """What was promised: a ratio of at least, or at most, so much. `found` is None when it was not measured."""

    what: str
    found: float | None
    at_least: float | None = None
    at_most: float | None = None

    def met(self):
        if self.found is None:
            return None
        return (self.at_least is None or self.found >= self.at_least) and (
            self.at_most is None or self.found <= self.at_most)

    def row(self, section):
        wanted = f"at least {self.at_least:g}" if self.at_least is not None else f"at most {self.at_most:g}"
        found = "" if self.found is None else f"{self.found:.2f}"
        verdict = {True: "met", False: "**NOT met**", None: "not measured"}[self.met()]
        return f"| {self.what} | {wanted} | {found} | {verdict} | [{section.NAME}](#{anchor(section.TITLE)}) |"


def load(directory):
    """The raw data that is there, by section."""
    found = {}
    for name in all_sections():
        path = directory / "raw" / f"{name}.json"
        if path.exists():
            found[name] = json.loads(path.read_text())
    return found


def text(raws):
    sections = [(section, raws.get(name)) for name, section in all_sections().items()]
    measured = [(section, raw) for section, raw in sections if raw]
    missing = [section.TITLE for section, raw in sections if not raw]
    lines = [INTRODUCTION, *summary(measured), *(where_behind(measured))]
    if missing:
        lines += [f"Not measured yet: {', '.join(missing)}.", ""]
    for section, raw in measured:
        lines += [f"## {section.TITLE}", "", origin(section, raw), "", section.report(raw["data"]).strip(), ""]
    return "\n".join(lines).rstrip() + "\n"


def summary(measured):
    rows = [target.row(section) for section, raw in measured for target in section.targets(raw["data"])]
    if not rows:
        return []
    return ["## Targets", "", "| target | wanted | measured | | section |", "| --- | --- | --- | --- | --- |", *rows, ""]


def where_behind(measured):
    found = [f"- {sentence}" for section, raw in measured for sentence in section.behind(raw["data"])]
    return ["## Where tcpgw is behind", "", *(found or ["In nothing that was measured here."]), ""]


def origin(section, raw):
    quick = " **A quick run, which is too short for valid figures.**" if raw["quick"] else ""
    return (f"Measured {facts.describe(raw['facts'])}, by `{raw['command']}` in {raw['seconds']:.0f} s; every run: "
            f"[raw/{section.NAME}.json](raw/{section.NAME}.json).{quick}")


def plot(section, name, what):
    """The line that shows a plot of a section."""
    return f"![{what}]({section}-{name}.svg)"


def table(head, rows):
    """A Markdown table, as lines."""
    return [f"| {' | '.join(map(str, row))} |" for row in (head, ["---"] * len(head), *rows)]


def anchor(title):
    return "".join(c for c in title.lower().replace(" ", "-") if c.isalnum() or c == "-")
