"""The processes of one Tollway: Valkey, engines and workers as children of `tollway serve`.

Reading order: `settings`, `child`, `keeper`, `tree`; beside them `lockfile` and `claim` (who
may use a data folder), `valkey` and `embedded` (the server in it), `sockets`. Imports nothing
else of ours, and starts nothing at import.
"""
