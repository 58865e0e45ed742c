"""Flow kind `documents`, on real folders: what is found, what is said, and when it counts as changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentic_flywheel.errors import FlowMissing
from agentic_flywheel.flows.documents import DocumentsClient, documents_folder
from agentic_flywheel.flows.protocol import (
    AnswerDone,
    FlowQuestion,
    FlowSpec,
    Revision,
    SourcesFound,
    TextPart,
    answer_of,
)
from agentic_flywheel.model import Exchange

pytestmark = pytest.mark.anyio

GUIDE = """\
---
title: ignored
---
# Tidewater

Tidewater keeps the readings of harbour sensors and answers questions about them. <!-- not shown -->

## Installation

Install it with one command:

```sh
pip install tidewater
# this is no heading
tide init --harbour rotterdam
```

Python 3.11 or newer is needed. Windows is not supported.

## Configuration

Settings come from the environment.

| Variable | Meaning | Default |
|---|---|---|
| `TIDE_STORE_URL` | Where readings are kept. | local file |
| `TIDE_POLL_SECONDS` | How often sensors are polled. | 30 |
| `TIDE_LOG_LEVEL` | How much is logged. | warning |

### Credentials

Passwords never stand in the configuration file. Put them into the system keyring with `tide secret set`.

## Retention

Readings are kept for ninety days. Older readings are aggregated to one value per hour and kept for ever.
To keep raw readings longer, run `tide retention set 365d`. The change takes effect at midnight.

## Alarms

- **Flood**: the level rises by more than 40 cm in an hour. The harbour master is called.
- **Silence**: a sensor has not reported for ten minutes. The sensor's owner gets an e-mail.
- **Drift**: a sensor differs from its neighbours for a day.

An alarm is acknowledged with `tide alarm ack ID`.
"""

OPERATIONS = """\
# Operating Tidewater

## Backups

A backup is taken every night at two and written to the second site. Restore one with `tide restore FILE`; the
service must be stopped first.

## Upgrading

Stop the service, install the new version, start it again. Databases are migrated at the first start; going back to
an older version needs a restored backup.

## When the store is unreachable

Readings are buffered on the sensor for six hours. Nothing is lost if the store comes back within that time.
"""

FRENCH = """\
# Notes de l'équipe

## Étalonnage des capteurs

Un capteur est étalonné deux fois par an, au printemps et en automne. L'étalonnage dure vingt minutes.
"""

MANUAL = """\
Sensor manual
=============

Battery
-------

The battery lasts four years. Replace it when the lamp blinks red.

Mounting
--------

Mount the sensor two metres above the highest tide.
"""

#: Question, the section that answers it, a piece of the answer.
QUESTIONS = [
    ("How do I install Tidewater?", "guide.md#installation", "pip install tidewater"),
    ("Is Windows supported?", "guide.md#installation", "Windows is not supported"),
    ("what is TIDE_POLL_SECONDS", "guide.md#configuration", "How often sensors are polled"),
    ("Which variable sets the log level?", "guide.md#configuration", "TIDE_LOG_LEVEL"),
    ("Where do passwords go?", "guide.md#credentials", "keyring"),
    ("How long are readings kept?", "guide.md#retention", "ninety days"),
    ("tide retention set", "guide.md#retention", "365d"),
    ("When is the harbour master called?", "guide.md#alarms", "40 cm"),
    ("How do I acknowledge an alarm?", "guide.md#alarms", "tide alarm ack"),
    ("when are backups taken", "operations.md#backups", "every night at two"),
    ("How can I restore a backup?", "operations.md#backups", "tide restore FILE"),
    ("How do I upgrade to a new version?", "operations.md#upgrading", "Stop the service"),
    (
        "What happens to readings when the store is down or unreachable?",
        "operations.md#when-the-store-is-unreachable",
        "six hours",
    ),
    ("Quand faut-il etalonner un capteur ?", "notes/equipe.md#étalonnage-des-capteurs", "printemps"),
    ("How long does the battery last?", "manual.rst#battery", "four years"),
    ("How high should a sensor be mounted?", "manual.rst#mounting", "two metres"),
    ("why does a sensor get silent alarms", "guide.md#alarms", "ten minutes"),
    ("How do I instal it?", "guide.md#installation", "pip install"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "docs"
    (place / "notes").mkdir(parents=True)
    (place / "guide.md").write_text(GUIDE)
    (place / "operations.md").write_text(OPERATIONS)
    (place / "notes" / "equipe.md").write_text(FRENCH)
    (place / "manual.rst").write_text(MANUAL)
    (place / "picture.png").write_bytes(b"\x89PNG")
    (place / ".hidden.md").write_text("# Hidden\n\nsecret harbour")
    return place


def client_of(folder: Path | str, **options: object) -> DocumentsClient:
    return DocumentsClient(
        FlowSpec(key="docs", id=str(folder), kind="documents", options={"folder": str(folder), **options})
    )


async def ask(client: DocumentsClient, text: str, *history: tuple[str, str]) -> AnswerDone:
    exchanges = tuple(Exchange(*exchange) for exchange in history)
    return await answer_of(client.stream(FlowQuestion(text=text, history=exchanges)))


@pytest.mark.parametrize(("question", "section", "piece"), QUESTIONS, ids=[q for q, _, _ in QUESTIONS])
async def test_the_section_that_answers_comes_first(folder: Path, question: str, section: str, piece: str):
    done = await ask(client_of(folder), question)
    assert done.complete
    assert done.sources[0].uri == section
    assert piece in done.text
    assert done.sources[0].score is not None
    assert 0 < done.sources[0].score <= 1


@pytest.mark.parametrize(
    "question",
    ["What is the capital of France?", "How do I cook pasta?", "the", "who won the match yesterday", "日本語?"],
)
async def test_what_the_documents_do_not_say_is_said_and_not_kept(folder: Path, question: str):
    done = await ask(client_of(folder), question)
    assert not done.complete
    assert done.text.startswith("The documents say nothing about")
    assert done.sources == ()


async def test_events_are_text_sources_end(folder: Path):
    events = [event async for event in client_of(folder).stream(FlowQuestion(text="backup restore"))]
    assert [type(event) for event in events] == [TextPart, SourcesFound, AnswerDone]
    assert isinstance(events[0], TextPart)
    assert isinstance(events[-1], AnswerDone)
    assert events[0].text == events[-1].text


async def test_a_follow_up_is_found_with_the_words_of_before(folder: Path):
    client = client_of(folder)
    done = await ask(client, "And how long?", ("Tell me about the battery", "The battery lasts four years."))
    assert done.sources[0].uri == "manual.rst#battery"
    done = await ask(client, "When are backups taken?", ("Tell me about the battery", "It lasts four years."))
    assert done.sources[0].uri == "operations.md#backups"  # its own words come first


async def test_code_and_tables_are_quoted_whole(folder: Path):
    client = client_of(folder)
    text = (await ask(client, "How do I install Tidewater?")).text
    assert "```sh\npip install tidewater\n# this is no heading\ntide init --harbour rotterdam\n```" in text
    text = (await ask(client, "TIDE_STORE_URL")).text
    assert "| Variable | Meaning | Default |\n|---|---|---|\n| `TIDE_STORE_URL`" in text
    assert "not shown" not in text


async def test_answers_are_bounded_and_cut_between_sentences_rows_and_lines(tmp_path: Path):
    rows = "\n".join(f"| `setting_{n}` | what number {n} does, told at length |" for n in range(200))
    sentences = " ".join(f"Sentence {n} speaks of subject{n} at some length." for n in range(200))
    code = "\n".join(f"call({n})" for n in range(400))
    (tmp_path / "a.md").write_text(
        f"# Settings\n\n| Name | Meaning |\n|---|---|\n{rows}\n\n"
        f"# Prose\n\n{sentences}\n\n# Program\n\n```py\n{code}\n```\n"
    )
    client = client_of(tmp_path)
    table = (await ask(client, "setting_137")).text
    assert "| Name | Meaning |\n|---|---|\n| `setting_137` | what number 137 does" in table
    prose = (await ask(client, "subject150 prose")).text
    assert "Sentence 150 speaks of subject150 at some length." in prose
    assert prose.rstrip(" …").endswith("length.")
    program = (await ask(client, "program call")).text
    assert program.count("```") == 2
    for text in (table, prose, program):
        assert len(text) <= 1200
    short = await ask(client_of(tmp_path, answer_characters=300), "subject150 prose")
    assert "subject150" in short.text
    assert len(short.text) <= 300


async def test_revision_follows_content_names_and_number_and_nothing_else(folder: Path):
    client = client_of(folder)
    first = await client.revision(Revision())
    assert first.digest
    assert await client.revision(first) is first
    assert (await client_of(folder).revision(Revision())).digest == first.digest
    os.utime(folder / "guide.md", ns=(1, 1))
    (folder / "picture.png").write_bytes(b"other")
    assert await client.revision(first) is first
    seen = {first.digest}
    for change in (
        lambda: (folder / "guide.md").write_text(GUIDE.replace("ninety", "eighty")),
        lambda: (folder / "operations.md").rename(folder / "operating.md"),
        (folder / "notes" / "equipe.md").unlink,
        lambda: (folder / "notes" / "new.txt").write_text("New."),
    ):
        change()
        revision = await client.revision(first)
        assert revision.digest not in seen
        seen.add(revision.digest)
    assert (await client_of(folder).revision(Revision())).digest == revision.digest


async def test_an_edit_of_the_same_size_in_the_same_tick_is_seen(folder: Path):
    client = client_of(folder)
    for word in ("ninety", "eighty", "twenty", "thirty") * 5:
        (folder / "guide.md").write_text(GUIDE.replace("ninety", word))
        assert f"kept for {word} days" in (await ask(client, "How long are readings kept?")).text


async def test_an_edit_with_the_old_time_put_back_is_seen(folder: Path):
    client = client_of(folder)
    path = folder / "guide.md"
    os.utime(path, ns=(10**18, 10**18))
    first = await client.revision(Revision())
    path.write_text(GUIDE.replace("ninety", "eighty"))
    os.utime(path, ns=(10**18, 10**18))
    assert (await client.revision(first)).digest != first.digest


async def test_a_missing_folder(tmp_path: Path):
    client = client_of(tmp_path / "none")
    with pytest.raises(FlowMissing) as caught:
        await ask(client, "anything")
    assert str(tmp_path / "none") in caught.value.message
    with pytest.raises(FlowMissing):
        await client.revision(Revision())
    assert not (await client.check()).ok
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.txt").write_text("Anything goes here.")
    assert (await ask(client, "anything goes")).complete


async def test_what_cannot_be_read_is_left_out_and_named(folder: Path):
    (folder / "latin.md").write_bytes("# Été\n\nharbour".encode("latin-1"))
    (folder / "broken.md").symlink_to(folder / "gone.md")
    (folder / "loop").symlink_to(folder)
    health = await client_of(folder).check()
    assert health.ok
    assert "4 documents" in health.notes[0]
    assert {note.partition(" (")[0] for note in health.notes[1:]} == {"left out: latin.md", "left out: broken.md"}


async def test_an_empty_folder_says_nothing(tmp_path: Path):
    client = client_of(tmp_path)
    assert not (await ask(client, "anything at all")).complete
    assert not (await client.check()).ok


async def test_the_documentation_of_this_package_is_found():
    assert documents_folder("package:documentation").is_dir()
