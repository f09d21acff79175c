"""The program that commands belong to."""

from typing import Annotated

import typer

from rpucluster import __version__

app = typer.Typer(
    name="rpucluster",
    help="Simulate clusters of analog (RPU) accelerators: real training math, modelled time and energy.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _start(
    context: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if show_version:
        typer.echo(f"rpucluster {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
