"""Scores with their provenance: committed when a benchmark is scored, exported and imported in the Hub's layouts."""

from orchestrator.results.costs import add_up, attempts_of, spent_by, spent_of
from orchestrator.results.provenance import finite
from orchestrator.results.scores import Unscorable, add_cost, commit, suite_of, write_average

__all__ = [
    "Unscorable",
    "add_cost",
    "add_up",
    "attempts_of",
    "commit",
    "finite",
    "spent_by",
    "spent_of",
    "suite_of",
    "write_average",
]
