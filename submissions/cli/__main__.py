"""`python -m submissions.cli`: the same as `evalyard`."""

from submissions.cli import main

main()
