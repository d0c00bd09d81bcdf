"""A pinned model and a few hundred requests that every new engine or driver version answers before real work."""
