"""`afw mcp`: serve MCP clients over stdio until they close it."""

from __future__ import annotations

import click

from agentic_flywheel.interfaces.cli.frame import FlywheelCommand, Invocation


@click.command("mcp", cls=FlywheelCommand)
@click.option("--connect", metavar="URL", help="Pass everything on to a team's `afw serve`; its key: AFW_CONNECT_KEY.")
@click.pass_obj
def mcp(invocation: Invocation, connect: str | None) -> None:
    """Serve MCP clients over stdio. A client starts this itself; docs/mcp.md shows how to configure it."""
    import importlib.util

    if importlib.util.find_spec("mcp") is None:
        from agentic_flywheel.errors import ExtraMissing

        raise ExtraMissing("the MCP server", "mcp")
    if connect is not None:
        import os

        from agentic_flywheel.interfaces.mcp import bridge

        bridge.connect(connect, os.environ)
        return
    from agentic_flywheel.interfaces.mcp.server import main

    main(invocation.opening, settings=invocation.settings())
