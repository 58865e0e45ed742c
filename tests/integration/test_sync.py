"""The flywheel without an event loop: the same answers, from any thread, closed once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agentic_flywheel import Flywheel, FlywheelSync
from agentic_flywheel.errors import NotFound, QuestionError, UnknownFlow
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.privacy import PrivacyPolicy, Whose
from flywheels import Oracle, settings_for
from servers import Server

QUESTION = "How do I enable Redis persistence?"


def made(server: Server, folder: Path, oracle: Oracle) -> FlywheelSync:
    settings = settings_for(server, folder)
    registry = Registry(settings)
    registry.register("oracle", oracle)
    return FlywheelSync(Flywheel.open(settings=settings, registry=registry))


def test_the_same_names_without_await(redis_server: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    with made(redis_server, tmp_path, oracle) as flywheel:
        first = flywheel.ask(QUESTION, session="s")
        assert flywheel.ask(QUESTION).text == first.text
        assert [turn.answer for turn in flywheel.sessions.show("s").turns] == [first.text]
        assert flywheel.cache.show(str(first.key)).servable
        assert [spec.key for spec in flywheel.flows.list()] == ["oracle"]
        flywheel.flush()
        assert flywheel.cache.stats().total.questions == 2
        assert flywheel.own_data.of("nobody").sizes["turns"] == 0
        assert flywheel.erasing.go_on(dry_run=True).removed == {"traces": 0}
        assert {check.name for check in flywheel.doctor()} >= {"redis", "registry"}


def test_errors_arrive_as_they_are(valkey: Server, tmp_path: Path) -> None:
    with made(valkey, tmp_path, Oracle()) as flywheel:
        with pytest.raises(QuestionError):
            flywheel.ask("")
        with pytest.raises(UnknownFlow):
            flywheel.ask(QUESTION, flow="none")
        with pytest.raises(NotFound):
            flywheel.sessions.show("none")


def test_many_threads(redis_server: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    with made(redis_server, tmp_path, oracle) as flywheel, ThreadPoolExecutor(8) as pool:
        questions = [f"What is the number {n % 20} called in Redis?" for n in range(100)]
        answers = list(pool.map(lambda question: flywheel.ask(question, session=question), questions))
        assert all(question in answer.text for question, answer in zip(questions, answers, strict=True))
        turns = [len(flywheel.sessions.show(question).turns) for question in questions[:20]]
        assert turns == [5] * 20


def test_closing_twice_from_several_threads(valkey: Server, tmp_path: Path) -> None:
    flywheel = made(valkey, tmp_path, Oracle())
    answer = flywheel.ask(QUESTION)
    threads = [threading.Thread(target=flywheel.close) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    flywheel.close()
    with pytest.raises(RuntimeError, match="closed"):
        flywheel.ask(QUESTION)
    with made(valkey, tmp_path, Oracle()) as again:
        assert len(again.sessions.show(answer.session_id).turns) == 1


def test_no_thread_is_left(valkey: Server, tmp_path: Path) -> None:
    before = threading.active_count()
    with made(valkey, tmp_path, Oracle()) as flywheel:
        flywheel.ask(QUESTION)
    assert threading.active_count() <= before


def test_policies_and_retention(valkey: Server, tmp_path: Path) -> None:
    with made(valkey, tmp_path, Oracle()) as flywheel:
        flywheel.policies.set(Whose.TENANT, policy=PrivacyPolicy(history=False, retention_days=1))
        assert not flywheel.ask(QUESTION).remembered
        assert flywheel.policies.of().history_by == ("tenant",)
        assert flywheel.retention.sweep(dry_run=True).removed["turns"] == 0
