#!/bin/sh
# Runs a launched worker on its host: sbatch is given this file and the worker's command as arguments.
# The worker is a step of its own, because Slurm sends a preempted step SIGTERM at once, with or without
# `preempt_send_user_signal`, and a plain batch script nothing before the end.
# It is told when it will be signalled for its time limit, of which older Slurms say nothing: then it is reckoned from
# now, which is when the job starts.
limit=${LAUNCH_SECONDS:-0}
unset LAUNCH_SECONDS
end=${SLURM_JOB_END_TIME:-$(($(date +%s) + limit))}
if [ "$limit" -gt 0 ]; then
    export EVALYARD_WORKER_UNTIL=$((end - ${LAUNCH_NOTICE:-0}))
fi
unset LAUNCH_NOTICE
export EVALYARD_WORKER_HOST="${SLURMD_NODENAME:-}"
exec srun --ntasks=1 --mpi=none "$@"
