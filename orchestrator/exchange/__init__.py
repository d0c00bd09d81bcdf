"""Published boards, out and in: the layouts of the Open LLM Leaderboard's data sets, and Evalyard's own record in them.

Everything here that writes, writes files; what is read back goes to the tables through `orchestrator.results.imports`.
"""
