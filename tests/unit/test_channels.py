"""Sending through Apprise, to servers that are really there."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from jupyterhub_migspawner import channels
from jupyterhub_migspawner.errors import ConfigError
from jupyterhub_migspawner.policy.notices import Channel
from tests.sinks import Hook, Mailbox, hook, mailbox, refused_port, silent

SECRET = "hunter2T0K3N"


@pytest.fixture
def web() -> Iterator[Hook]:
    with hook() as made:
        yield made


@pytest.fixture
def post() -> Iterator[Mailbox]:
    with mailbox() as made:
        yield made


@pytest.fixture
def all_logs() -> Iterator[io.StringIO]:
    """What a process logs that logs all there is."""
    text, root = io.StringIO(), logging.getLogger()
    handler, before = logging.StreamHandler(text), root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield text
    root.removeHandler(handler)
    root.setLevel(before)


def test_a_webhook_gets_the_text_as_it_is(web: Hook) -> None:
    channel = Channel("admins", 0, f"{web.url}/{SECRET}")
    assert channels.send(channel, "A <b>title</b>", "Line 1 & *2*\nline 2") == ""
    [(path, body)] = web.heard
    assert path == f"/{SECRET}"
    assert (body["title"], body["message"]) == ("A <b>title</b>", "Line 1 & *2*\nline 2")
    assert "http" not in str(body)


@pytest.mark.parametrize(
    ("url", "field"),
    [
        ("mmost://127.0.0.1:{port}/3ccdd113474722377935511fc85d3dd4", "text"),
        ("mmost://127.0.0.1:{port}/3ccdd113474722377935511fc85d3dd4?format=markdown", "text"),
        ("gotify://127.0.0.1:{port}/token12345678901", "message"),
        ("ntfy://127.0.0.1:{port}/topic", "message"),
    ],
)
def test_chats_get_text_that_acts_on_nothing(web: Hook, url: str, field: str) -> None:
    channel = Channel("approvers", 0, url.format(port=web.server.server_port))
    typed = "<!channel> @everyone <@&1> [x](http://evil.example) **b**"
    title, body = channel.shown(f"T {typed}"), channel.shown(f"Reason: {typed}")
    assert channels.send(channel, title, body) == ""
    [(_, sent)] = web.heard
    for acting in ("<!", "@everyone", "<@", "[x](", "**b**"):
        assert acting not in str(sent)
    assert "everyone" in sent[field]


def test_a_title_is_one_header_of_a_mail(post: Mailbox) -> None:
    url = f"mailto://127.0.0.1:{post.port}?from=hub@example.org&to=ada@example.org&mode=insecure"
    title = "It is your turn\r\nBcc: eve@example.org\r\n\r\nforged"
    channels.send(Channel("admins", 0, url), title, "body\r\n.\r\nRCPT TO:<eve@example.org>\r\nend")
    [(receivers, mail)] = post.mails
    assert receivers == ["ada@example.org"]
    assert mail["Bcc"] is None
    assert "Bcc" in mail["Subject"]


def test_a_mail_goes_to_the_users_address_alone(post: Mailbox) -> None:
    url = f"mailto://127.0.0.1:{post.port}?from=hub@example.org&to={{address}}&mode=insecure"
    channel = Channel("users", 0, url)
    title, body = "Grüße: <it> is your turn", "large is held & kept.\nStart <now>."
    assert channels.send(channel, title, body, "ada", "ada@example.org") == ""
    [(receivers, mail)] = post.mails
    assert receivers == ["ada@example.org"]
    assert mail["Subject"] == title
    assert mail["To"] == "ada@example.org"
    text = mail.get_body(("html", "plain"))
    assert text is not None
    content = text.get_content()
    assert "<now>" not in content or text.get_content_subtype() == "plain"
    assert "large is held" in content


@pytest.mark.parametrize("status", [404, 500, 302])
def test_what_the_other_side_refuses_is_said_without_the_secret(web: Hook, status: int) -> None:
    web.status = status
    problem = channels.send(Channel("admins", 0, f"{web.url}/{SECRET}"), "a", "b")
    assert problem
    assert SECRET not in problem


def test_nobody_listens(all_logs: io.StringIO) -> None:
    channel = Channel("admins", 0, f"json://u:{SECRET}@127.0.0.1:{refused_port()}/{SECRET}")
    problem = channels.send(channel, "a", "b")
    assert "onnection" in problem
    assert SECRET not in problem
    assert SECRET not in all_logs.getvalue()


def test_a_server_that_never_answers_is_not_waited_for_for_ever() -> None:
    with silent() as port:
        url = f"json://127.0.0.1:{port}/{SECRET}?rto=0.2&cto=0.2"
        problem = channels.send(Channel("admins", 0, url), "a", "b")
    assert problem
    assert SECRET not in problem


def test_a_user_without_an_address_is_said_to_have_none(web: Hook) -> None:
    channel = Channel("users", 0, f"{web.url}/{{address}}")
    assert "'ada' has no name or address" in channels.send(channel, "a", "b", "ada", "")
    assert web.heard == []


@pytest.mark.parametrize(
    "url", [f"bogus://x/{SECRET}", f"slack://{SECRET}", "mailto://", f"mailtos://{SECRET}"]
)
def test_what_apprise_does_not_know_is_refused_without_the_secret(url: str) -> None:
    with pytest.raises(
        ConfigError, match=r"MigBroker.notices: admins\[0\] .* is not a URL"
    ) as told:
        channels.check([Channel("admins", 0, url)])
    assert SECRET not in str(told.value)


@pytest.mark.parametrize(
    "url",
    [
        f"mailtos://hub:{SECRET}@mail.example.org?to={{user}}@example.org",
        "mailto://mail.example.org?from=hub@example.org&to={address}",
        "json://bridge.example.org/{user}",
    ],
)
def test_a_users_channel_is_tried_with_a_name(url: str) -> None:
    channels.check([Channel("users", 0, url)])


def test_the_examples_of_the_guide_are_known() -> None:
    channels.check(
        [
            Channel("admins", 0, "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#gpu"),
            Channel("admins", 1, "mmosts://chat.example.org/3ccdd113474722377935511fc85d3dd4"),
            Channel("admins", 2, "jsons://bridge.example.org/gpu"),
        ]
    )
