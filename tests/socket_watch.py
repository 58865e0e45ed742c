"""What Python processes open, look up and start, seen from inside each: audit hooks that write it down.

A `.pth` file of a virtual environment made for it installs the hooks, so they are there in every process that is
started with its interpreter (`sys.executable`), whatever environment variables it is given. (Some systems have a
`sitecustomize` of their own, which would hide ours.) A process that leaves `site` out (`-S`) is not watched: that it
was started is written down all the same.
"""

from __future__ import annotations

import ipaddress
import json
import sysconfig
import venv
from pathlib import Path
from typing import Any

_HOOK = """\
import json, os, socket, sys

def _watch():
    record = os.open({record!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    kinds = ("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg")
    names = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo")

    def write(event, family, what):
        line = json.dumps({{"pid": os.getpid(), "event": event, "family": family, "what": what}}, default=os.fsdecode)
        os.write(record, line.encode() + b"\\n")

    def hook(event, args):
        if event in kinds:
            if args[1] is not None:  # `sendmsg` on a connection names no address
                family = socket.AddressFamily(args[0].family).name
                write(event, family, args[1] if family == "AF_UNIX" else args[1][0])
        elif event in names:
            write(event, "", args[0])
        elif event == "subprocess.Popen":
            words = [os.fsdecode(word) for word in args[1]]
            texts = [open(word).read() for word in words if word.endswith(".conf")]
            write(event, "", {{"words": words, "configurations": texts}})

    write("started", "", list(sys.orig_argv))
    sys.addaudithook(hook)

_watch()
"""


class SocketWatch:
    """A Python interpreter whose processes are watched, and what they did."""

    def __init__(self, folder: Path) -> None:
        self._record = folder / "record"
        venv.create(folder / "venv", symlinks=True)
        self.python = folder / "venv" / "bin" / "python"
        paths = {"base": str(folder / "venv"), "platbase": str(folder / "venv")}
        site_packages = Path(sysconfig.get_path("purelib", "venv", paths))
        here = sysconfig.get_path("purelib")
        (site_packages / "watched.pth").write_text(f"import watching, site; site.addsitedir({here!r})\n")
        (site_packages / "watching.py").write_text(_HOOK.format(record=str(self._record)))

    def seen(self, event: str) -> list[dict[str, Any]]:
        """Every record whose event begins so, in the order in which they were written."""
        lines = self._record.read_text("utf-8").splitlines() if self._record.exists() else []
        return [row for row in map(json.loads, lines) if row["event"].startswith(event)]

    def abroad(self) -> list[dict[str, Any]]:
        """What could leave this machine: addresses that are neither Unix sockets nor loopback, names looked up."""
        return [row for row in self.seen("socket.") if not (row["family"] == "AF_UNIX" or _is_loopback(row["what"]))]


def _is_loopback(address: object) -> bool:
    try:
        return ipaddress.ip_address(str(address)).is_loopback
    except ValueError:  # a name: whoever asks for it asks somebody
        return False
