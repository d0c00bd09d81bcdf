"""lm-eval's own back ends, unchanged, in a fresh process: what Evalyard's answers and speed are compared with.

`run` is the program, `launch` starts it and listens. Nothing here may share the code that it is compared with: tasks,
encoding, answering, filters and metrics are lm-eval's; only where datasets lie, and how files are written, is ours.
"""
