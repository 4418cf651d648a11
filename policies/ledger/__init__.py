"""Prepaid credit, rate limits and the journal, kept by functions that run inside Redis."""
