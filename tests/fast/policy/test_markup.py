"""Text of people in chats, mail and webhooks: it is shown, and nothing in it acts."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_migspawner.policy.markup import MOST_WORD, PLAIN, cut_words, for_channel
from jupyterhub_migspawner.policy.messages import Happening, message_of
from jupyterhub_migspawner.policy.notices import Channel

NOON = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)

CHATS = [
    "slack",
    "discord",
    "mmost",
    "mmosts",
    "matrixs",
    "rockets",
    "workflows",
    "tgram",
    "gchat",
    "zulip",
    "webex",
    "ntfy",
]

#: What chats and mail programs act on: mentions, links behind other words, formatting.
ACTING = [
    "<!channel>",
    "<!subteam^S123|x>",
    "<@U123>",
    "<@&123>",
    "<#C123>",
    "<http://evil.example|click>",
    "@everyone",
    "@here",
    "@room",
    "@ada",
    "[x](http://evil.example)",
    "![x](http://evil.example/pixel)",
    "[x]: http://evil.example",
    "**b**",
    "__u__",
    "_i_",
    "~~s~~",
    "||spoiler||",
    "`code`",
    "# heading",
    "> quote",
    "&lt;!channel&gt;",
    "&#64;everyone",
    "<b>bold</b>",
    "<a href='http://evil.example'>x</a>",
    "javascript:alert(1)",
    "file:///etc/passwd",
    "slack://open",
    "\\[x](http://evil.example)",
]


@pytest.mark.parametrize("scheme", CHATS)
@pytest.mark.parametrize("text", ACTING)
def test_nothing_acts_in_a_chat(scheme: str, text: str) -> None:
    shown = for_channel(f"a {text} b", scheme)
    assert text not in shown
    assert not set("<>@[]`*~|#\\") & set(shown)
    assert "&lt;" not in shown
    assert "javascript:" not in shown


@pytest.mark.parametrize("scheme", ["apprise", "apprises", "Apprise"])
def test_what_another_apprise_sends_on_acts_in_no_chat(scheme: str) -> None:
    assert "<@&1>" not in for_channel("<@&1> [x](https://evil.example)", scheme)


@pytest.mark.parametrize("scheme", sorted(PLAIN))
def test_mail_and_webhooks_get_it_as_it_is(scheme: str) -> None:
    for text in ACTING:
        assert for_channel(text, scheme) == text


@given(st.text())
def test_escaping_twice_is_escaping_once(text: str) -> None:
    once = for_channel(text, "slack")
    assert for_channel(once, "slack") == once
    assert not set("<>@[]`*~|#\\") & set(once)


def test_what_has_no_meaning_stays() -> None:
    text = "Grüße: my_tier_2 at 50% (see https://ok.example/a_b?c=d&e=f), 2 - 1 = 1!"
    assert for_channel(text, "slack") == text


def test_the_scheme_of_a_url_may_be_written_in_any_case() -> None:
    assert for_channel("<@all>", "MailTo") == "<@all>"
    assert for_channel("<@all>", "Slack") != "<@all>"


def test_long_words_are_cut() -> None:
    cut = cut_words(f"a {'x' * 500} b")
    assert cut == f"a {'x' * MOST_WORD}… b"


def test_a_message_is_escaped_and_its_link_is_not() -> None:
    made = message_of(
        Happening(
            "request.created",
            NOON,
            user="@everyone",
            request_id=7,
            detail={
                "tier": "[x](y)",
                "hours": 2,
                "why": "<@&1> \u202eevil\u202c \x1b[31m\nSubject: forged " + "y" * 400,
            },
        )
    )
    assert made is not None
    chat = Channel("approvers", 0, "discord://1234567890/token")
    text = made.text("https://hub.example.org/@/a_b/services/migspawner/", chat)
    body, _, link = text.rpartition("\n\n")
    assert link == "https://hub.example.org/@/a_b/services/migspawner/decisions"
    assert not set("<>@[]`*~|#\\\u202e\x1b") & set(body)
    assert "\nSubject" not in body
    assert "@" not in chat.shown(made.title)
    mail = Channel("approvers", 1, "mailto://localhost?from=a@b.example&to=c@d.example")
    assert "<@&1> evil" in made.text(channel=mail)
    assert "\n" not in made.title
