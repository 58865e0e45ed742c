"""`afw chat`: a conversation in one session, line by line.

Invariant: what is typed is asked in one session through the same path as `afw ask`; a question that fails is reported
and the conversation goes on. Without a terminal every line of stdin is a question, and the exit code is that of the
last question that failed.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from agentic_flywheel.interfaces.cli.frame import FlywheelCommand, Invocation

if TYPE_CHECKING:
    from agentic_flywheel import FlywheelSync
    from agentic_flywheel.likeness import Cut
    from agentic_flywheel.model import Answer

HELP = """\
/session   where this conversation is kept, and its last turns
/explain   how the last answer came to be
/report    wrong, outdated or private: say so of the last answer; a note may follow
/new       begin another session
/help      this list
/quit      leave (so does Ctrl-D); the session stays"""


@click.command("chat", cls=FlywheelCommand, epilog="Example: afw chat --continue")
@click.option("--flow", metavar="KEY", help="Ask this flow; else each question is routed.")
@click.option("--session", metavar="ID", help="Talk in this session; else a new one begins.")
@click.option("--continue", "go_on", is_flag=True, help="Go on in the newest session.")
@click.option("--user", metavar="ID", help="Who talks.")
@click.option("--private", is_flag=True, help="Keep the answers for this session alone.")
@click.pass_obj
def chat(
    invocation: Invocation, flow: str | None, session: str | None, go_on: bool, user: str | None, private: bool
) -> int:
    """Talk in one session: every line is a question, and follow-ups know what was said.

    /help lists the commands of the conversation. On a terminal answers are printed as they come; else each is printed
    when it is whole, one after the other (with --json one object a line).
    """
    if session is not None and go_on:
        raise click.UsageError("--session and --continue exclude each other.")
    from agentic_flywheel import FlywheelSync

    with FlywheelSync.open(settings=invocation.settings()) as flywheel:
        inside = flywheel.sessions.resume(None, user=user).id if go_on else session
        talk = Conversation(flywheel, as_json=invocation.as_json, flow=flow, session=inside, user=user, private=private)
        return talk.run()


class Conversation:
    """One run of `afw chat`; `session` is None until the first answer of a new one names it."""

    def __init__(
        self,
        flywheel: FlywheelSync,
        *,
        as_json: bool,
        flow: str | None,
        session: str | None,
        user: str | None,
        private: bool,
    ) -> None:
        self.flywheel = flywheel
        self.as_json = as_json
        self.flow = flow
        self.session = session
        self.user = user
        self.private = private
        self.last: Answer | None = None
        self.exit_code = 0
        self.typed = sys.stdin.isatty()
        self.streams = self.typed and sys.stdout.isatty() and not as_json

    def run(self) -> int:
        """Until /quit or the end of stdin; returns the exit code."""
        from agentic_flywheel.interfaces.cli.terminal import note

        if self.typed:
            _enable_line_editing()
            note("One line is one question; /help lists the commands, Ctrl-D leaves.")
            if self.session is not None:
                self._show_session()
        while (line := self._read()) is not None:
            if line.startswith("/"):
                if not self._obey(line):
                    break
            elif line:
                self._ask(line)
        if self.typed and self.session is not None:
            note(f"Kept: afw chat --session {self.session}")
        return 0 if self.typed else self.exit_code

    def _read(self) -> str | None:
        """The next line, None at the end; Ctrl-C empties the line being typed."""
        if not self.typed:
            line = sys.stdin.readline()
            return line.strip() if line else None
        try:
            return input("> ").strip()
        except EOFError:
            print(file=sys.stderr)
            return None
        except KeyboardInterrupt:
            print(file=sys.stderr)
            return ""

    def _ask(self, question: str) -> None:
        from agentic_flywheel.errors import FlywheelError
        from agentic_flywheel.interfaces.cli.ask import show_answer, show_notes
        from agentic_flywheel.interfaces.cli.terminal import note, print_error, print_json
        from agentic_flywheel.interfaces.cli.voice import Voice
        from agentic_flywheel.model import Directives

        asked: dict[str, Any] = {
            "session": self.session,
            "flow": self.flow,
            "user": self.user,
            "directives": Directives(private=self.private),
        }
        voice = Voice()
        try:
            if self.streams:
                with closing(self.flywheel.stream(question, **asked)) as events:
                    answer = voice.follow_now(events)
            else:
                answer = self.flywheel.ask(question, **asked)
        except FlywheelError as error:
            voice.end()
            print_error(error, as_json=self.as_json, one_object_per_line=True)
            self.exit_code = error.exit_code
        except KeyboardInterrupt:
            if not self.typed:
                raise
            voice.end()
            note("Not waited for.")
        else:
            self.session, self.last = answer.session_id or self.session, answer
            if self.as_json:
                print_json(answer, indent=0)
            elif self.streams:
                show_notes(answer)
            else:
                show_answer(answer)
        sys.stdout.flush()

    def _obey(self, line: str) -> bool:
        """Do what a line that begins with a slash says; False ends the conversation."""
        import difflib

        from agentic_flywheel.interfaces.cli.ask import explain_answer
        from agentic_flywheel.interfaces.cli.terminal import note

        word, _, rest = line.partition(" ")
        word = word.casefold()
        match word:
            case "/quit" | "/exit" | "/q":
                return False
            case "/help" | "/?":
                note(HELP, dim=False)
            case "/session":
                self._show_session()
            case "/explain":
                if self.last is None:
                    note("Nothing has been asked yet.")
                else:
                    explain_answer(self.last, self._cut(self.last), self._earlier(self.last))
            case "/report":
                self._report(rest)
            case "/new":
                self.session, self.last = None, None
                note("The next question begins a new session.")
            case _:
                known = [line.split()[0] for line in HELP.splitlines()]
                close = difflib.get_close_matches(word, known, n=1)
                note(f"No such command {word!r}. " + (f"Did you mean {close[0]}?" if close else "/help lists them."))
                self.exit_code = 2
        return True

    def _report(self, said: str) -> None:
        """Report the last answer: `said` is a kind, and a note behind it."""
        from agentic_flywheel.errors import FlywheelError
        from agentic_flywheel.interfaces.cli.report import KINDS, show_report
        from agentic_flywheel.interfaces.cli.terminal import note, print_error, print_json

        kind, _, remark = said.strip().partition(" ")
        if self.last is None or kind not in KINDS:
            note("Nothing has been asked yet." if self.last is None else f"Say one of: /report {' | '.join(KINDS)}.")
            self.exit_code = 2
            return
        try:
            receipt, _ = self.flywheel.similar.report(
                self.last.turn_id, kind, note=remark, session=self.last.session_id, user=self.user
            )
        except FlywheelError as error:
            print_error(error, as_json=self.as_json, one_object_per_line=True)
            self.exit_code = error.exit_code
        else:
            if self.as_json:
                print_json({"receipt": receipt}, indent=0)
            else:
                show_report(receipt)

    def _cut(self, answer: Answer) -> Cut | None:
        from agentic_flywheel.errors import StoreError
        from agentic_flywheel.interfaces.cli.ask import compared

        if not compared(answer):
            return None
        try:
            cut: Cut = self.flywheel.similar.status(answer.flow).cut
        except StoreError:  # the answer's own warnings tell of it
            return None
        return cut

    def _earlier(self, answer: Answer) -> Mapping[str, str]:
        from agentic_flywheel.errors import StoreError, UnknownSession
        from agentic_flywheel.interfaces.cli.explain import asked_in

        if not answer.enrichment:
            return {}
        try:
            return asked_in(self.flywheel.sessions.show(answer.session_id))
        except (StoreError, UnknownSession):
            return {}

    def _show_session(self) -> None:
        from agentic_flywheel.amounts import counted
        from agentic_flywheel.errors import FlywheelError
        from agentic_flywheel.interfaces.cli.terminal import note, one_line, print_error

        if self.session is None:
            note("A new session: it begins with the first question.")
            return
        try:
            thread = self.flywheel.sessions.show(self.session, limit=3)
        except FlywheelError as error:
            print_error(error, as_json=False)
            return
        note(f"{thread.session.id} · {counted(thread.session.turns, 'turns')} · {one_line(thread.session.title)}")
        for turn in thread.turns:
            note(f"  > {one_line(turn.question, 76)}")
            note(f"    {one_line(turn.answer, 76)}")


def _enable_line_editing() -> None:
    """Arrow keys and history while typing, where the platform has readline; nothing is written to disk."""
    import contextlib

    with contextlib.suppress(ImportError):  # some builds of Python come without it; typing works all the same
        import readline  # noqa: F401  (importing it is what turns it on)
