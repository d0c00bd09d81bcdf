"""Evaluating again after a harness upgrade: what changed, plans to do it, and which version the board shows."""
