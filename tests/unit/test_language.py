"""Which language a question is in: told by function words and scripts, never guessed from nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_flywheel.policy.similarity.language import fold, language_of


@pytest.mark.parametrize(
    ("question", "language"),
    [
        ("How do I renew my passport?", "en"),
        ("what's new in the shop", "en"),
        ("Comment renouveler mon passeport ?", "fr"),
        ("Qu’est-ce qu’un bail ?", "fr"),
        ("C'EST QUOI UN BAIL", "fr"),
        ("Wie erneuere ich meinen Pass und was kostet das?", "de"),
        ("¿Cómo renuevo mi pasaporte?", "es"),
        ("Come posso rinnovare il mio passaporto?", "it"),
        ("Hoe vernieuw ik mijn paspoort en wat kost dat?", "nl"),
        ("Как продлить паспорт?", "cyrillic"),
        ("如何更新护照", "han"),
        ("كيف أجدد جواز السفر", "arabic"),
        ("redis cluster", "und"),
        ("404", "und"),
        ("", "und"),
        ("What does 谢谢 mean?", "en"),
        ("What is a Wanderweg?", "en"),
    ],
)
def test_languages(question: str, language: str) -> None:
    assert language_of(question) == language


@given(st.text(max_size=200))
def test_every_text_has_a_language(text: str) -> None:
    assert language_of(text)
    assert fold(fold(text)) == fold(text) or not text.isascii()
