#!/bin/sh
# Runs a launched worker on its host: sbatch is given this file and the worker's command as arguments.
# The worker is a step of its own, because Slurm sends a preempted step SIGTERM at once, with or without
# `preempt_send_user_signal`, and a plain batch script nothing before the end.
exec srun --ntasks=1 --mpi=none "$@"
