"""The check of prose finds a word that is out wherever people read it, and nothing else."""

from __future__ import annotations

import pytest

from tests import prose

PYTHON = '''"""A module.

Its docstring tells of whoever
calls it.
"""

NAME = "somebody"
SHOWN = (
    "The tier is shown to "
    "somebody else."
)

# A comment that is wrapped about a place in the
# waiting list.
whoever = wanted = 1  # names are free


def shown(user: str) -> str:
    """Return who ``whoever`` is."""
    return f"{user} is told of {whoever}, for want of a name."
'''

MARKDOWN = """# Heading

Whoever reads `whoever` here
is [told of it](for-want-of.md#whoever).

```python
whoever = 1
```

- Nothing is wanted.
"""

TEMPLATE = """{% for whoever in people %}{# whoever comes first #}
<p class="somebody else" title="Whoever may decide">{{ whoever.wanted }}</p>
{{ "told by somebody" if whoever else "for want of a name" }}
<p>You keep
your place.</p>
{% endfor %}
"""

SCRIPT = """const whoever = "somebody"; // whoever closed it
show("Somebody may " + whoever); /* for
want of it */
"""

YAML = """wanted:
  type: string
  description: As it is wanted.
"""


def found(file: str, text: str) -> list[tuple[int, str]]:
    return [(each.line, each.word) for each in prose.findings(file, text)]


def test_docstrings_strings_and_comments_of_python_are_read() -> None:
    assert found("jupyterhub_migspawner/x.py", PYTHON) == [
        (3, "tells of"),
        (3, "whoever"),
        (10, "somebody"),
        (13, "place in the waiting list"),
        (20, "for want of"),
        (20, "is told"),
        (20, "told of"),
    ]


def test_text_of_markdown_is_read_without_its_code_and_links() -> None:
    assert found("docs/x.md", MARKDOWN) == [
        (3, "Whoever"),
        (4, "told of"),
        (10, "wanted"),
    ]


def test_text_of_templates_is_read_with_what_expressions_and_attributes_show() -> None:
    assert found("jupyterhub_migspawner/x.html", TEMPLATE) == [
        (1, "whoever"),
        (2, "Whoever"),
        (3, "for want of"),
        (3, "somebody"),
        (4, "keep your place"),
    ]


def test_texts_and_comments_of_scripts_are_read() -> None:
    assert found("x.js", SCRIPT) == [(1, "whoever"), (2, "Somebody"), (2, "for want of")]


def test_values_of_yaml_are_read() -> None:
    assert found("x.yaml", YAML) == [(3, "wanted")]


def test_other_files_are_not_read() -> None:
    assert found("x.png", "whoever") == []


def test_a_finding_says_where_it_is_and_what_to_write() -> None:
    (only,) = prose.findings("docs/x.md", "It starts anew.\n")
    assert str(only) == "docs/x.md:1: 'anew': write again"


@pytest.mark.parametrize(
    "text",
    [
        "These cannot be told apart, nor can one be told from the other.",
        "The agent is told to stop.",
        "No command takes a slice out of service.",
        "A notebook stays; a standby server lags behind.",
        "The column slices.wanted and the trait idle_minutes_when_wanted are names.",
        "In place of the queue there is a list.",
    ],
)
def test_ordinary_english_is_left_alone(text: str) -> None:
    assert found("docs/x.md", text) == []


FUNCTIONS = '''"""Verbs and nouns."""


class Lease:
    """A lease."""

    seats: int = 1
    """How many may hold it."""

    @property
    def user(self) -> str:
        """The person's name."""

    @functools.cached_property
    def hours(self) -> float:
        """Hours that are left."""

    @user.setter
    def user(self, name: str) -> None:
        """The person's name."""

    @classmethod
    def of(cls, user: str) -> Lease:
        """The lease of a user."""

    async def release(self) -> None:
        """
        Releases it.
        """

    def drop(self) -> None:
        """Release: end it, now."""

    def _end(self) -> None:
        """The end."""


if True:

    def is_free() -> bool:
        """Whether it is free."""

        def look() -> bool:
            """What is found."""


def count() -> int:
    """``count`` of the leases."""


def undescribed() -> None:
    pass
'''


def test_summaries_of_public_functions_begin_with_a_verb() -> None:
    assert found("jupyterhub_migspawner/x.py", FUNCTIONS) == [
        (24, "The"),
        (27, "Releases"),
        (41, "Whether"),
        (48, "``count``"),
    ]


def test_summaries_are_read_in_the_package_alone() -> None:
    assert found("tests/x.py", FUNCTIONS) == []
    assert found("docs/jupyterhub_migspawner/x.py", FUNCTIONS) == []


def test_a_summary_without_a_verb_is_reported_with_its_line_and_word() -> None:
    text = 'def is_free():\n    """Whether it is free."""\n'
    (only,) = prose.findings("jupyterhub_migspawner/x.py", text)
    assert str(only) == (
        "jupyterhub_migspawner/x.py:2: 'Whether': write a verb in the imperative first, "
        "one of VERBS in tests/prose.py"
    )


def test_an_allowed_word_needs_its_own_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prose, "ALLOWED", {("docs/x.md", "quotes whoever"): "a quotation"})
    text = "It quotes whoever wrote it.\n\nIt is for whoever reads it."
    assert found("docs/x.md", text) == [(3, "whoever")]
    assert found("docs/y.md", text) == [(1, "whoever"), (3, "whoever")]


def test_every_exception_has_a_reason_and_is_of_use() -> None:
    for (file, context), reason in prose.ALLOWED.items():
        assert reason
        assert context in " ".join((prose.ROOT / file).read_text("utf-8").split())
