"""Checks that no secret is in the tree and no known hole in what is installed: `python -m deploy.security`."""
