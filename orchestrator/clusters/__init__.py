"""Workers that the hub launches by itself where a cluster's scheduler has idle GPUs: Slurm and Kubernetes.

Asks nothing at import; `launcher` runs in the control process, in a thread of its own.
"""
