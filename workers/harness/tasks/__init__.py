"""lm-eval task files that ship with Evalyard; found by `prepare` without configuration."""
