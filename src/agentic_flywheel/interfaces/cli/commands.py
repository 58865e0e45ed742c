"""The table of all commands of `afw`.

Invariant: a command is imported when it is called; showing the help of the whole command line imports none of them.
"""

from __future__ import annotations

import click

from agentic_flywheel.interfaces.cli.frame import Invocation, Late, LateGroup

COMMANDS = {
    "ask": Late("ask", "ask", "Ask a question; the answer is remembered."),
    "chat": Late("chat", "chat", "Talk in one session."),
    "report": Late("report", "report", "Say that an answer is wrong, outdated or private."),
    "trace": Late("trace", "trace", "What became of a question, and the link to its trace."),
    "explain": Late("explain", "explain", "What would become of a question, without asking it."),
    "session": Late("session", "session", "List, read, resume, tag and delete sessions."),
    "search": Late("search", "search", "Search what was asked and answered."),
    "popular": Late("popular", "popular", "What is asked most."),
    "paths": Late("popular", "paths", "What is asked next, after a question."),
    "stats": Late("stats", "stats", "What the memory comes to: hits, times, what is saved, sessions."),
    "cache": Late("cache", "cache", "Look at stored answers, and clear them."),
    "warm": Late("warm", "warm", "Ask questions before anybody asks them."),
    "similar": Late("similar", "similar", "How similar questions share answers, flow by flow."),
    "proposals": Late("proposals", "proposals", "Changes that evidence suggests; accept or reject them."),
    "faq": Late("faq", "faq", "Answers that somebody stands behind: edit, approve, export."),
    "flow": Late("flow", "flow", "List, add, change, check and try flows."),
    "ttl": Late("ttl", "ttl", "How long answers stay good."),
    "privacy": Late("privacy", "privacy", "What is kept of questions and answers; policies."),
    "forget": Late("forget", "forget", "Remove all that came of a session, or of a person."),
    "export": Late("backup", "export", "Write sessions, policies and answers to a file."),
    "import": Late("backup", "import_", "Put back what an export wrote."),
    "config": Late("config", "config", "Settings, and where each came from."),
    "doctor": Late("doctor", "doctor", "What is fine, what is not, and what to do."),
    "embedder": Late("embedder", "embedder", "What gives questions their vectors; fetch its model, try it."),
    "index": Late("search", "index", "The index that searches use; make it anew."),
    "outbox": Late("outbox", "outbox", "Turns that wait until Redis is back."),
    "redis": Late("redis", "redis", "The embedded Redis server."),
    "serve": Late("serve", "serve", "Serve a team over HTTP."),
    "key": Late("key", "key", "API keys of the service: make, list, revoke."),
    "keys": Late("keys", "keys", "Keys that values are encrypted with: make, show, rotate."),
    "audit": Late("audit", "audit", "Who administered what, when and why; check the log and receipts."),
    "mcp": Late("mcp", "mcp", "Serve MCP clients over stdio."),
    "tash": Late("plain", "tash", "Store a value under a key, as `coaia tash` does."),
    "fetch": Late("plain", "fetch", "Read a value by its key, as `coaia fetch` does."),
}


def _show_version(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if not value or context.resilient_parsing:
        return
    from agentic_flywheel import __version__

    click.echo(f"afw {__version__}")
    context.exit()


@click.group(
    cls=LateGroup,
    table=COMMANDS,
    epilog="`afw COMMAND --help` tells more. Exit codes: 0 done, 1 not found or refused, 2 unavailable or wrong usage.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version."
)
@click.pass_context
def afw(context: click.Context) -> None:
    """Ask AI flows, with a memory: answers are kept, served again when that is right, and explained."""
    context.ensure_object(Invocation)
