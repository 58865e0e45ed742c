"""`afw mcp`: serve MCP clients over stdio until they close it."""

from __future__ import annotations

import click

from agentic_flywheel.interfaces.cli.frame import FlywheelCommand, Invocation


@click.command("mcp", cls=FlywheelCommand)
@click.pass_obj
def mcp(invocation: Invocation) -> None:
    """Serve MCP clients over stdio. A client starts this itself; docs/mcp.md shows how to configure it."""
    import importlib.util

    if importlib.util.find_spec("mcp") is None:
        from agentic_flywheel.errors import ExtraMissing

        raise ExtraMissing("the MCP server", "mcp")
    from agentic_flywheel.interfaces.mcp.server import main

    main(invocation.opening, settings=invocation.settings())
