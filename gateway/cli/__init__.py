"""The ``tollway`` command. Each command's module is imported when it is used."""

from __future__ import annotations

import importlib

import click

COMMANDS = {
    "serve": ("gateway.cli.serve", "serve"),
    "worker": ("gateway.cli.worker", "worker"),
    "keys": ("gateway.cli.keys", "keys"),
    "credits": ("gateway.cli.money", "credits_group"),
    "journal": ("gateway.cli.money", "journal"),
    "ledger": ("gateway.cli.money", "ledger_group"),
    "models": ("gateway.cli.models", "models"),
    "chat": ("gateway.cli.models", "chat"),
    "bench": ("gateway.cli.bench", "bench"),
    "config": ("gateway.cli.inspect", "config_group"),
    "status": ("gateway.cli.inspect", "status"),
    "doctor": ("gateway.cli.inspect", "doctor"),
}


class LazyGroup(click.Group):
    """Imports a command's module only when it is asked for: ``serve`` must start quickly."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of a first visit."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tollway", prog_name="tollway")
def main() -> None:
    """One API key, every model, your own prices.

    `tollway serve` starts everything; the other commands work beside it and without it.
    """
