"""scripts/bench: the sections of the benchmark, and what they share.

A section is a module named in `sections.NAMES`. It has

NAME                the word on the command line, and the name of its raw data
TITLE               its heading in the report
measure(options)    runs it and gives what was measured, as data that JSON can hold
targets(raw)        [report.Target]: what was promised about the figures, and whether it holds
behind(raw)         [str]: a sentence for each comparison that tcpgw loses
report(raw)         its part of the report, Markdown, without the heading; it shows the plots by report.plot
plots(raw)          {name: matplotlib figure} (figures.begin); the file is called NAME-name.svg

Only `measure` touches the machine. The others see nothing but the raw data, so the report can be written again at any
time, and `report`, `targets` and `behind` do so without matplotlib.
"""
