"""Scores with their provenance: committed when a benchmark is scored, exported and imported in the Hub's layouts."""

from orchestrator.results.provenance import finite
from orchestrator.results.scores import Unscorable, add_cost, commit, suite_of

__all__ = ["Unscorable", "add_cost", "commit", "finite", "suite_of"]
