"""A child for the supervisor's tests: writes down what happens to it.

Arguments: NAME EVENTS_FILE HOW [SOCKET]. HOW is one word: `polite` leaves at SIGTERM,
`deaf` ignores SIGTERM, `parent` is polite and has a child of its own in its process group.
At SIGTERM it appends `NAME stopped`, and whether SOCKET still answered, to the events file.
"""

import os
import signal
import socket
import subprocess
import sys

name, events, how, *sockets = sys.argv[1:]


def note(text: str) -> None:
    """Appends one line by one write, so that lines of several children do not mix."""
    descriptor = os.open(events, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{name} {text}\n".encode())
    os.close(descriptor)


def valkey_answers() -> bool:
    """Whether the server on the given socket answers PING."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(sockets[0])
            client.sendall(b"PING\r\n")
            return client.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def on_terminate(*_: object) -> None:
    """Notes the request and leaves, unless deaf."""
    if how == "deaf":
        note("ignored")
        return
    note(f"stopped valkey={valkey_answers()}" if sockets else "stopped")
    os._exit(0)


signal.signal(signal.SIGTERM, on_terminate)
if how == "parent":
    grandchild = subprocess.Popen(["/bin/sleep", "600"])
    note(f"grandchild {grandchild.pid}")
note(f"started {os.getpid()} group={os.getpgrp()} session={os.getsid(0)}")
while True:
    signal.pause()
