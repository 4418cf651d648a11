"""Measures what a gateway costs: its own upstream, its own load, CPU time read from the system.

``upstream`` answers at once, ``load`` asks and checks every answer through ``client``, ``cost``
reads the CPU of a process tree. Nothing here imports the gateway: it measures any server that
speaks OpenAI chat.
"""
