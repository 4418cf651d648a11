"""A batching engine for Hugging Face models: a process of its own, reached over a Unix socket.

It speaks OpenAI's chat protocol, is usable without the gateway, and imports nothing of it.
"""
