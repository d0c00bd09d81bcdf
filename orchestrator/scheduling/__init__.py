"""Who runs next, and where; why a job waits, and about how long.

`scheduler.plan` and the rules it rests on are pure. `speeds`, `forecasts` and `overlaps` read rows. Nothing writes a
job here: `orchestrator.dispatch` does what was planned.
"""
