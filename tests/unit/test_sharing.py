"""Who may share an answer: every combination of policy and asker, and the words that only ever narrow it."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_flywheel.model import Directives, Sharing
from agentic_flywheel.policy.sharing import Scope, marker, may_stand_alone, personal, scope_of

PLAIN = "How do I enable Redis persistence?"
PERSONAL = "How do I enable persistence on my Redis server?"
#: Rule by rule, the first that matches: (sharing, private, personal, user known) -> scope. None stands for any.
RULES: list[tuple[Sharing | None, bool | None, bool | None, bool | None, Scope | None]] = [
    (Sharing.NONE, None, None, None, None),
    (None, True, None, None, Scope.SESSION),
    (Sharing.SESSION, None, None, None, Scope.SESSION),
    (Sharing.USER, None, None, True, Scope.USER),
    (Sharing.USER, None, None, False, Scope.SESSION),
    (Sharing.TEAM, None, True, True, Scope.USER),
    (Sharing.TEAM, None, True, False, Scope.SESSION),
    (Sharing.TEAM, None, False, None, Scope.TEAM),
]


@pytest.mark.parametrize("case", list(product(Sharing, (False, True), (False, True), (False, True))), ids=str)
def test_scopes(case: tuple[Sharing, bool, bool, bool]) -> None:
    sharing, private, about_me, known = case
    expected = next(
        rule[4] for rule in RULES if all(want is None or want == is_ for want, is_ in zip(rule, case, strict=False))
    )
    question = PERSONAL if about_me else PLAIN
    user = "ana" if known else ""
    assert scope_of(sharing, Directives(private=private), question=question, user=user) is expected


@pytest.mark.parametrize(
    "question",
    [
        "What about mobile?",
        "And how do I configure the replicas of the cluster?",
        "But does the cluster support transactions across nodes?",
        "How does it scale across several data centers?",
        "Which of these databases supports geographic queries?",
        "Who wrote the same library for Windows systems?",
        "Why?",
        "Why not",
        "How come?",
        "More details",
        "Explain further the replication protocol of Redis",
        "How large is my database server?",
        "Do our replicas store backups?",
        "ok then configure the production cluster",
        "it’s configuration file location on disk",
        "Et pour les téléphones mobiles Android ?",
        "Mais comment configurer la réplication du serveur ?",
        "Qu'en est-il des sauvegardes du serveur ?",
        "Pourquoi ?",
        "Pourquoi pas",
        "Comment ça fonctionne avec un cluster Redis ?",
        "Quel est leur format de stockage sur disque ?",
        "Cette commande supporte combien de clés simultanées ?",
        "Comment sauvegarder mes données Redis chaque nuit ?",
        "Peut-on aussi configurer la compression des sauvegardes ?",
        "Redis persistence",
        "What is the?",
        "日本語",
    ],
)
def test_words_that_may_lean_on_something_earlier(question: str) -> None:
    assert marker(question)
    assert not may_stand_alone(question, allowed=True)


@pytest.mark.parametrize(
    "question",
    [
        PLAIN,
        "What does Redis persistence cost in throughput?",
        "Which commands does Redis Cluster refuse?",
        "Comment activer la persistance de Redis sur disque ?",
        "Combien de connexions un serveur Valkey accepte par défaut ?",
    ],
)
def test_questions_that_stand_alone_only_where_it_is_allowed(question: str) -> None:
    assert marker(question) == ""
    assert may_stand_alone(question, allowed=True)
    assert not may_stand_alone(question, allowed=False)


@pytest.mark.parametrize(
    ("question", "about_me"),
    [
        ("Where is my key?", True),
        ("Are these keys OURS?", True),
        ("Où sont mes clés ?", True),
        ("C’est le mien ?", True),
        ("What does MySQL cost?", False),
        ("Show the mines of Moria", False),
        ("What is `my_key`?", True),  # in doubt the narrower scope
    ],
)
def test_whose_it_is(question: str, about_me: bool) -> None:
    assert personal(question) is about_me


@given(st.text(max_size=60), st.booleans())
def test_words_never_widen(question: str, known: bool) -> None:
    order = [Scope.SESSION, Scope.USER, Scope.TEAM]
    user = "ana" if known else ""
    given_scope = scope_of(Sharing.TEAM, Directives(), question=question, user=user)
    plain_scope = scope_of(Sharing.TEAM, Directives(), question=PLAIN, user=user)
    assert given_scope is not None
    assert plain_scope is not None
    assert order.index(given_scope) <= order.index(plain_scope)
    assert scope_of(Sharing.TEAM, Directives(private=True), question=question, user=user) is Scope.SESSION
