"""The `envelock` command: its own commands, and those that other rooms bring.

Rooms announce theirs as entry points in the group `envelock.commands`. Each is loaded when it is
used, so `envelock --help` and `envelock encrypt` load no server. The global options are accepted
before and after every command, and stand in every help.
"""

import copy
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from envelock.commands.console import Console
from envelock.commands.report import INTERRUPTED, report

ENTRY_POINTS = "envelock.commands"
# What `--help` says of each, so that it need not load them.
SUMMARIES = {
    "up": "Start ledger, PDP, KAS and a token issuer here.",
    "login": "Write a profile: where the KAS is, who you are, which ledger.",
    "encrypt": "Seal a file or a stream.",
    "decrypt": "Open a sealed file, if its policy permits.",
    "rebind": "Give a sealed file another policy, without opening it.",
    "inspect": "Show what a sealed file says of itself.",
    "doctor": "Say what is wrong with a sealed file, and who refuses it.",
    "keys": "List, rotate, suspend and destroy keys.",
    "policy": "Try policy bundles before they are in force.",
    "ledger": "Verify, read and copy the ledger.",
    "status": "Whether keys are released here; if not, what is missing.",
    "bench": "Measure this machine: releases, appends, decisions, files.",
    "demo": "The whole story on this machine, in ten steps.",
}
OWN = ("login", "encrypt", "decrypt", "rebind", "inspect", "doctor", "bench")
BANNER = """\
envelock seals files whose keys are released by policy, and never without a record.

  envelock up                                        start it here; leave it running
  echo hi | envelock encrypt - --as doctor --attr clearance=secret -o hi.tdf
  envelock decrypt hi.tdf --as doctor -o -           hi
  envelock decrypt hi.tdf --as accountant -o -       refused; then: envelock ledger show
  envelock demo                                      or watch the whole story in ten steps

  envelock --help                                    every command
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    Args:
        arguments: Without the program's name; those of the process when None.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = root.main(
            given,
            prog_name="envelock",
            standalone_mode=False,
            obj=Console(),
        )
    except click.Abort:
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 the edge: whatever it is, a person reads one line
        return report(error, as_object=_wants_json(given))
    return code if isinstance(code, int) else 0


class Rooms(click.Group):
    """The root group: commands are found by name and loaded when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 click's signature
        """Ours in the order of a first day, then what others brought."""
        from importlib.metadata import entry_points  # noqa: PLC0415 only where names are wanted

        found = {point.name for point in entry_points(group=ENTRY_POINTS)} | set(OWN)
        known = [name for name in SUMMARIES if name in found]
        return [*known, *sorted(found - set(known))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 click's signature
        """Load a command, and give it the global options; None when there is none."""
        command = _own(cmd_name) if cmd_name in OWN else _of_a_room(cmd_name)
        return None if command is None else with_global_options(command, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's own, but what is suggested for an unknown name are all names."""
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            known = self.list_commands(ctx)
            raise click.exceptions.NoSuchCommand(args[0], possibilities=known, ctx=ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, SUMMARIES.get(name, "")) for name in self.list_commands(ctx)]
            )


def _own(name: str) -> click.Command:
    from importlib import import_module  # noqa: PLC0415 not for `--help`

    command: click.Command = import_module(f"envelock.commands.{name}").command
    return command


def _of_a_room(name: str) -> click.Command | None:
    from importlib.metadata import entry_points  # noqa: PLC0415 not for our own commands

    for point in entry_points(group=ENTRY_POINTS, name=name):
        command: click.Command = point.load()
        return command
    return None


def with_global_options(command: click.Command, name: str) -> click.Command:
    """A copy of *command*, and of those below it, that takes the global options too."""
    made = copy.copy(command)
    made.name = name
    taken = {option for parameter in command.params for option in parameter.opts}
    added = [option for option in _global_options() if not taken.intersection(option.opts)]
    made.params = [*command.params, *added]
    if isinstance(made, click.Group):
        made.commands = {
            below: with_global_options(found, below) for below, found in made.commands.items()
        }
    return made


def _global_options() -> list[click.Option]:
    return [
        click.Option(
            ["--data"],
            metavar="DIR",
            type=click.Path(path_type=Path),
            expose_value=False,
            callback=_remember,
            help="Data directory of `envelock up`  [default: $ENVELOCK_DATA, then"
            " $XDG_DATA_HOME/envelock]",
        ),
        click.Option(
            ["--as", "profile"],
            metavar="NAME",
            expose_value=False,
            callback=_remember,
            shell_complete=_profiles,
            help="Profile to act as  [default: $ENVELOCK_PROFILE, then `default`]",
        ),
        click.Option(
            ["--json"],
            is_flag=True,
            expose_value=False,
            callback=_remember,
            help="Print one JSON object instead of text.",
        ),
    ]


def _remember(context: click.Context, parameter: click.Parameter, value: object) -> None:
    if not isinstance(context.obj, Console):
        return
    match parameter.name, value:
        case "data", Path():
            context.obj = replace(context.obj, directory=value)
        case "profile", str():
            context.obj = replace(context.obj, profile=value)
        case "json", True:
            context.obj = replace(context.obj, json=True)


def _profiles(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Complete the names of profiles."""
    from envelock.profile import list_profiles  # noqa: PLC0415 only while a shell completes

    data = context.obj.data if isinstance(context.obj, Console) else None
    return [name for name in list_profiles(os.environ, data) if name.startswith(incomplete)]


def _wants_json(arguments: Sequence[str]) -> bool:
    """Whether `--json` was asked for, also where the line could not be parsed."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return "--json" in arguments[:end]


def _version(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        from importlib.metadata import version  # noqa: PLC0415 only here

        click.echo(f"envelock {version('envelock')}")
        context.exit()


@click.command(
    cls=Rooms,
    invoke_without_command=True,
    params=[
        *_global_options(),
        click.Option(
            ["--version"], is_flag=True, expose_value=False, is_eager=True, callback=_version
        ),
    ],
    epilog="Complete commands and profiles in your shell: "
    'eval "$(_ENVELOCK_COMPLETE=bash_source envelock)"  (or zsh_source, fish_source)',
)
@click.pass_context
def root(context: click.Context) -> None:
    """Seal files under policy; open them where the policy permits and the ledger has it on record.

    \b
    Examples:
      envelock up
      envelock encrypt q3.pdf --as doctor --attr clearance=secret
      envelock decrypt q3.pdf.tdf --as doctor
      envelock ledger verify
    """  # noqa: D301 click's own mark for text that keeps its lines
    if context.invoked_subcommand is None:
        click.echo(BANNER, nl=False)
