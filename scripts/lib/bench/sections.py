"""Which sections there are, in the order of the report."""

import importlib
import importlib.util

NAMES = ("control", "data", "churn", "daemon", "flush", "limits", "scale", "addon", "metrics", "traffic")


def all_sections():
    return {name: importlib.import_module(f"bench.{name}") for name in NAMES if importlib.util.find_spec(f"bench.{name}")}
