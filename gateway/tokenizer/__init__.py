"""Exact token counts, in a process of their own that all workers share (design decision 11).

Encodings take seconds and up to 100 MB to load, and counting a long prompt takes milliseconds in
which no stream may stand still: none of it happens in a worker.
"""
