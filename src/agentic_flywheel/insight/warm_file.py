"""Questions to warm, read from a file: one a line, JSON lines, JSON or YAML.

Invariant: what is not understood is refused with file and line; nothing is guessed, and nothing is asked before all of
it was read.

    What is Redis?                                    # plain text: a line is a question, `#` begins a remark
    {"question": "What is Redis?", "flow": "docs", "then": ["How is it backed up?", "How often?"]}
    - question: What is Redis?
      then: How is it backed up?
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from agentic_flywheel.errors import InputError
from agentic_flywheel.warmups import MOST_QUESTIONS, WarmPath

_LINES = frozenset({".jsonl", ".ndjson"})
_TREES = frozenset({".yaml", ".yml", ".json"})
_KEYS = frozenset({"question", "then", "flow", "standalone"})


def read_questions(said: str | bytes, name: str) -> tuple[WarmPath, ...]:
    """The questions of a file that is called `name`. What its ending does not tell, its first character does.

    Raises `InputError`.

    >>> read_questions("What is Redis?  ", "a.txt")[0].questions
    ('What is Redis?',)
    """
    try:
        text = said if isinstance(said, str) else said.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not UTF-8 text (byte {error.start})", file=name) from error
    ending = Path(name).suffix.casefold()
    if ending in _TREES:
        found = _tree(text, name)
    elif ending in _LINES or text.lstrip("\ufeff \t\r\n")[:1] == "{":
        found = _json_lines(text, name)
    else:
        found = _plain(text)
    paths = tuple(found)
    if not paths:
        raise InputError(f"{name} holds no question", file=name)
    if (count := sum(len(path.questions) for path in paths)) > MOST_QUESTIONS:
        raise InputError(
            f"{name} holds {count} questions; one warm-up takes at most {MOST_QUESTIONS}",
            suggestions=("Split the file.",),
            file=name,
        )
    return paths


def _plain(text: str) -> Iterator[WarmPath]:
    for line in text.removeprefix("\ufeff").splitlines():
        if (question := line.strip()) and not question.startswith("#"):
            yield WarmPath(questions=(question,))


def _json_lines(text: str, name: str) -> Iterator[WarmPath]:
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = msgspec.json.decode(line)
        except msgspec.DecodeError as error:
            raise _unfit(name, number, f"one JSON value ({error})") from error
        yield _path(value, name, number)


def _tree(text: str, name: str) -> Iterator[WarmPath]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        tree = YAML(typ="rt", pure=True).load(text.removeprefix("\ufeff"))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _unfit(name, mark.line + 1 if mark else None, f"YAML ({error.problem or error.context})") from error
    except (YAMLError, ValueError, RecursionError) as error:
        raise _unfit(name, None, f"YAML ({str(error).partition(chr(10))[0]})") from error
    if isinstance(tree, dict) and set(tree) == {"questions"}:
        tree = tree["questions"]
    if not isinstance(tree, list):
        raise _unfit(name, 1, "a list of questions")
    for number, value in enumerate(tree):
        yield _path(value, name, _line(tree, number))


def _line(tree: Any, number: int) -> int | None:
    try:
        return int(tree.lc.item(number)[0]) + 1
    except (AttributeError, KeyError, TypeError):
        return None


def _path(value: Any, name: str, line: int | None) -> WarmPath:
    if isinstance(value, str):
        return WarmPath(questions=_questions([value], name, line))
    if not isinstance(value, dict):
        raise _unfit(name, line, "a question, or a mapping with 'question'")
    if unknown := sorted(str(key) for key in value if key not in _KEYS):
        raise _unfit(name, line, f"only {', '.join(sorted(_KEYS))}, not {unknown[0]!r}")
    then, flow, standalone = value.get("then") or [], value.get("flow") or "", value.get("standalone") or False
    if isinstance(then, str):
        then = [then]
    if not isinstance(then, list):
        raise _unfit(name, line, "'then' to be a question or a list of them")
    if not isinstance(flow, str) or not isinstance(standalone, bool):
        raise _unfit(name, line, "'flow' to be a flow's key, and 'standalone' true or false")
    questions = _questions([value.get("question"), *then], name, line)
    return WarmPath(questions=questions, flow=str(flow).strip(), standalone=bool(standalone))


def _questions(values: Iterable[Any], name: str, line: int | None) -> tuple[str, ...]:
    questions = []
    for value in values:
        if not isinstance(value, str) or not value.strip():
            raise _unfit(name, line, "each question to be text")
        questions.append(str(value).strip())
    return tuple(questions)


def _unfit(name: str, line: int | None, expected: str) -> InputError:
    place = name if line is None else f"{name}:{line}"
    return InputError(
        f"{place}: expected {expected}",
        suggestions=("docs/warming.md shows the forms that such a file may have.",),
        file=name,
        line=line,
    )
