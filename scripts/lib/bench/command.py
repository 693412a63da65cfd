"""Measures tcpgw against its peers, and writes docs/benchmarks/.

Everything happens in network namespaces of its own, which are gone afterwards. It needs root, and installs what it
needs. What counts is the ratio within one run, on one machine.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import facts, figures, report
from bench.facts import ROOT
from bench.lab import Failed, say
from bench.options import Options
from bench.sections import all_sections

DOCS = ROOT / "docs" / "benchmarks"


def main():
    options = arguments()
    sections = all_sections()
    if options.list:
        for name, section in sections.items():
            print(f"{name:10} {section.TITLE}")
        return
    unknown = [name for name in options.section if name not in sections]
    if unknown:
        sys.exit(f"bench: no section {unknown[0]}: there are {', '.join(sections)}")
    directory = Path(options.out) if options.out else DOCS
    if options.check:
        sys.exit(check(directory))
    if options.report:
        write_report(directory)
        return
    measure(options, [sections[name] for name in options.section or sections])


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", nargs="*", metavar="SECTION", help="only these; all without")
    parser.add_argument("--quick", action="store_true",
                        help="small and short, to see whether it works; written to a temporary directory")
    parser.add_argument("--runs", type=int, help="repetitions of each figure; by default each section has its own number")
    parser.add_argument("--out", metavar="DIR", help="where the report goes; docs/benchmarks without")
    parser.add_argument("--list", action="store_true", help="say which sections there are")
    parser.add_argument("--report", action="store_true", help="measure nothing, write report and plots from the raw data")
    parser.add_argument("--check", action="store_true", help="fail when the report is not what the raw data says")
    return parser.parse_args()


def check(directory):
    """0, or what is wrong. Needs no matplotlib: of the plots it sees only whether they are there."""
    path = directory / "README.md"
    text = report.text(report.load(directory))
    if path.read_text() != text:
        return f"bench: {path} is not what its raw data says: run scripts/bench --report"
    shown = set(re.findall(r"\]\(([^)/]+\.svg)\)", text))
    drawn = {file.name for file in directory.glob("*.svg")}
    if shown != drawn:
        return f"bench: plots that are shown and not there, or the other way round: {', '.join(sorted(shown ^ drawn))}"
    return 0


def measure(options, sections):
    if os.geteuid() != 0:
        sys.exit("bench: needs root for network namespaces: sudo scripts/bench")
    # What is to be removed is removed then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    tcpgw = prepare()
    directory = Path(options.out or (tempfile.mkdtemp(prefix="tcpgw-bench-") if options.quick else DOCS))
    failed = []
    for section in sections:
        say(section.TITLE)
        try:
            run(section, Options(tcpgw=tcpgw, quick=options.quick, runs=options.runs), directory)
        except Failed as failure:
            print(f"bench: {section.NAME}: {failure}", file=sys.stderr)
            failed.append(section.NAME)
    text = write_report(directory)
    if options.quick:
        print(text)
    say(f"the report is in {directory}")
    if failed:
        sys.exit(f"bench: failed: {', '.join(failed)}")


def prepare():
    """Installs and builds; gives the program."""
    subprocess.run([ROOT / "vagrant" / "provision", "--peers"], check=True)
    cargo = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo")) / "bin"
    os.environ["PATH"] = f"{cargo}:{os.environ['PATH']}:/usr/sbin:/sbin"
    say("build")
    subprocess.run(["cargo", "build", "--release", "--locked", "--bins", "--example", "load", "--example", "last_hour"], cwd=ROOT, check=True)
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "release" / "tcpgw"


def run(section, options, directory):
    about = facts.gather()
    begin = time.monotonic()
    data = section.measure(options)
    raw = {
        "command": command(section, options),
        "quick": options.quick,
        "seconds": round(time.monotonic() - begin, 1),
        "facts": about,
        "data": data,
    }
    path = directory / "raw" / f"{section.NAME}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(readable(raw))


def readable(raw):
    """JSON with a list of numbers on one line."""
    lines = json.dumps(raw, indent=1, sort_keys=True) + "\n"
    return re.sub(r"\[[-+0-9.eE,\s]+\]", lambda found: " ".join(found.group().split()), lines)


def command(section, options):
    """What measures this section again."""
    flags = ["--quick"] * options.quick + (["--runs", str(options.runs)] if options.runs else [])
    return " ".join(["scripts/bench", section.NAME, *flags])


def write_report(directory):
    raws = report.load(directory)
    for old in directory.glob("*.svg"):
        old.unlink()
    for name, section in all_sections().items():
        if name not in raws:
            continue
        for plot, figure in section.plots(raws[name]["data"]).items():
            figures.save(figure, directory / f"{name}-{plot}.svg")
    text = report.text(raws)
    (directory / "README.md").write_text(text)
    return text
