"""A small `serve` for the supervisor's tests: Valkey, one engine, two workers.

Arguments: DATA_DIR EVENTS_FILE HOW, with HOW for the children as in child_main.py.
"""

import asyncio
import logging
import sys
from pathlib import Path

from gateway.supervisor.child import ChildSpec
from gateway.supervisor.claim import claim_data_folder
from gateway.supervisor.errors import SupervisorError
from gateway.supervisor.groups import valkey_group
from gateway.supervisor.living import Group
from gateway.supervisor.settings import SupervisorSettings
from gateway.supervisor.sockets import short_socket_path
from gateway.supervisor.tree import Supervisor

CHILD = Path(__file__).with_name("child_main.py")


def specs(data_dir: Path, events: str, how: str, names: list[str]) -> tuple[ChildSpec, ...]:
    """Children that note what happens to them; their role is their name without the number."""
    valkey_socket = str(short_socket_path(data_dir, "valkey.sock"))
    return tuple(
        ChildSpec(
            name=name,
            role=name.partition("-")[0],
            argv=(sys.executable, "-I", "-S", str(CHILD), name, events, how, valkey_socket),
            env={},
            stop_grace_s=30.0,
        )
        for name in names
    )


async def main(data_dir: Path, events: str, how: str) -> int:
    """Runs the tree; returns its exit code."""
    async with claim_data_folder(data_dir) as lock:
        supervisor = Supervisor(
            [
                valkey_group(lock.data_dir, {}),
                Group("engines", specs(lock.data_dir, events, how, ["engine-1"])),
                Group("workers", specs(lock.data_dir, events, how, ["worker-1", "worker-2"])),
            ],
            lock,
            settings=SupervisorSettings(restart_first_delay_s=0.05),
        )
        return await supervisor.run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    try:
        raise SystemExit(asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:])))
    except SupervisorError as error:
        raise SystemExit(str(error)) from error
