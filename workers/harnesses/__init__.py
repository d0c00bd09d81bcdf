"""Several versions of the harness on one host, each in an environment of its own."""
