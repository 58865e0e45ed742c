"""`afw serve`: the service over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from agentic_flywheel.interfaces.cli.frame import FlywheelCommand, Invocation

if TYPE_CHECKING:
    from agentic_flywheel.interfaces.http.serving import Served


@click.command("serve", cls=FlywheelCommand, epilog="Example: afw serve --port 8765")
@click.option("--host", metavar="ADDRESS", help="Listen here; any but loopback demands credentials. [127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Listen on this port; 0: any that is free. [8765]")
@click.option("--workers", type=click.IntRange(1, 256), metavar="N", help="Serve with so many processes. [1]")
@click.option("--demo", is_flag=True, help="With a server, flows and a history of its own, to look around in.")
@click.option("--log-format", type=click.Choice(("text", "json")), help="How to log, on stderr. [text]")
@click.pass_obj
def serve(
    invocation: Invocation,
    host: str | None,
    port: int | None,
    workers: int | None,
    demo: bool,
    log_format: str | None,
) -> None:
    """Serve a team over HTTP, until SIGTERM or Ctrl-C.

    One process (or --workers of them), one port.
    """
    _need_extra()
    from agentic_flywheel.interfaces.http.logs import log_to_stderr
    from agentic_flywheel.interfaces.http.start import start

    given = {"serve.host": host, "serve.port": port, "serve.workers": workers, "serve.log_format": log_format}
    invocation.arguments |= {name: value for name, value in given.items() if value is not None}
    settings = invocation.settings()
    log_to_stderr(settings.text("serve.log_format"))

    def ready(served: Served) -> None:
        _say(served, as_json=invocation.as_json)

    if not demo:
        start(settings, ready)
        return
    from agentic_flywheel.interfaces.cli.terminal import note
    from agentic_flywheel.interfaces.http.demo import demonstration

    note("Preparing the demo: a server of its own, and a team's history …")
    with demonstration(settings) as own:
        start(own, ready)


def _need_extra() -> None:
    from importlib.util import find_spec

    from agentic_flywheel.errors import ExtraMissing

    if any(find_spec(name) is None for name in ("starlette", "uvicorn", "prometheus_client", "jwt")):
        raise ExtraMissing("The service", "serve")


def _say(served: Served, *, as_json: bool) -> None:
    """What is served where: for people on stderr, as one line of JSON on stdout."""
    import sys

    from agentic_flywheel.interfaces.cli.terminal import as_wire, note, print_json

    if as_json:
        print_json({"event": "serving", **as_wire(served)}, indent=0)
        sys.stdout.flush()
    by = f" with {len(served.workers)} workers" if len(served.workers) > 1 else ""
    note(f"Serving at {served.url}{by} (Ctrl-C ends it)", bold=True)
    for line in served.lines:
        note(f"  {line}")
