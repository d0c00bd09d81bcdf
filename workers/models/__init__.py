"""A model's files on this host: found, fetched ahead, kept within a budget, and never code of theirs run."""
