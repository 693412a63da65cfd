"""How a section is to be measured."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """`quick`: small and short, to see whether it works. `runs`: repetitions of each figure, None for the usual."""

    tcpgw: Path
    quick: bool = False
    runs: int | None = None

    def repetitions(self, usual, quick=1):
        return self.runs or (quick if self.quick else usual)
