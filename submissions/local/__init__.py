"""Commands that need no server: `evaluate`, and its three stages by hand from files to files.

This package alone brings together the checks of a submission and the workers' stage programs (`.importlinter` holds it
to that); `submissions.cli` adds its commands when one of them is called.
"""
