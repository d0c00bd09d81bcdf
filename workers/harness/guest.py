"""What runs inside the sandbox: limits, then one generated program with its tests. Only `sandbox` starts it.

`python guest.py WORD VERDICT LIMITS`: the program comes on standard input, WORD and VERDICT are descriptors. Imports
nothing but the standard library, as nothing else is there. The word is not read before the program has ended.
"""

import fcntl
import json
import os
import resource
import sys


def main() -> None:
    # Moved to the lowest numbers that are free: those of the worker's, which may have many files open, say nothing.
    word, verdict = (_lowest(int(descriptor)) for descriptor in sys.argv[1:3])
    limits = json.loads(sys.argv[3])
    # Held here: the program may replace what modules offer.
    read, write, leave, kinds = os.read, os.write, os._exit, (type, str, ascii)
    source = sys.stdin.buffer.read()
    # Tells `sandbox_watch` which process of the host's this is; the program cannot, as it has not this descriptor.
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    nothing = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)
    sys.argv[1:] = []
    sys.path.append("/packages")
    for name, wanted in limits.items():
        most = resource.getrlimit(getattr(resource, name))[1]
        soft, hard = (limit if most == resource.RLIM_INFINITY else min(limit, most) for limit in wanted)
        resource.setrlimit(getattr(resource, name), (soft, hard))
    write(verdict, b"started\n")
    try:
        # As one program and in a namespace of its own, as Hugging Face's `code_eval` does.
        exec(source.decode(), {})  # noqa: S102  # what this process is for
    except BaseException as error:
        of, text, plain = kinds
        said = f"{of(error).__name__}: {text(error)[:300]}".rstrip(": ")
        write(verdict, plain(said)[1:-1].encode())
        leave(1)
    write(verdict, read(word, 64))
    leave(0)


def _lowest(descriptor: int) -> int:
    moved = os.dup(descriptor)
    os.close(descriptor)
    return moved


if __name__ == "__main__":
    main()
