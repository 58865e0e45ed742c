"""Pages that people edit come back as they were, whatever stands in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_flywheel.errors import InputError
from agentic_flywheel.insight.faq_page import Page, page_of, read_page

LINE = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=30).map(
    lambda text: " ".join(text.split())
)
#: What a question or wording looks like: one line that is no heading and no item of a list.
ASKED = LINE.filter(lambda text: text != "" and text[0] not in "#-*")
ANSWER = st.text(st.sampled_from("# \n-*aAnswerQuestionAlso asked <>!"), max_size=80).map(str.strip)


@given(ASKED, st.lists(ASKED, max_size=4, unique=True), ANSWER, ASKED)
def test_a_page_that_is_left_alone_is_what_it_was(question: str, others: list[str], answer: str, note: str) -> None:
    page = Page(question, tuple(other for other in others if other != question), answer)
    assert read_page(page_of(page)) == page
    assert read_page(page_of(page, note)) == page
    assert read_page(page_of(page, note).replace("\n", "\r\n")).question == question


def test_an_answer_may_have_the_headings_of_the_page() -> None:
    answer = "# Question\n\nIs it?\n\n# Also asked as\n\n- No\n\n# Answer\n\nYes."
    assert read_page(page_of(Page("Why?", (), answer))) == Page("Why?", (), answer)


def test_what_people_do_to_a_page() -> None:
    text = "\n\n# Question\nWhy\n  is that?\n# Also asked as\n* One\n\n  - Two\n- Two\n# Answer\n\n\nSo.\n\n"
    assert read_page(text) == Page("Why is that?", ("One", "Two"), "So.")


@pytest.mark.parametrize("text", ["", "Why?", "# Question\nWhy?\n# Answer\nSo.", "# Answer\n# Question\n"])
def test_what_is_no_page_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="headings"):
        read_page(text)
