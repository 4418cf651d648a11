"""Routing policies and the planner; two rooms with effects: ledger and shared state."""
