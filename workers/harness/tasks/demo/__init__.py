"""The demo suite's tasks: generated from a small grammar, so that they need no download and no GPU."""
