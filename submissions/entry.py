"""What the console script calls: it loads the command, and Ctrl-C during that second is no traceback either.

It imports nothing else.
"""

import sys


def main() -> None:
    """`evalyard`, from the very beginning."""
    try:
        from submissions.cli import main as command
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        sys.exit(130)
    command()
