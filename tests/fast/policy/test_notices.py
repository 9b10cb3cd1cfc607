"""Who is notified of what, and where: the configuration of notices and the sentences of events."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_migspawner.errors import ConfigError
from jupyterhub_migspawner.model import events
from jupyterhub_migspawner.policy.messages import KINDS, Happening, Message, message_of
from jupyterhub_migspawner.policy.notices import TOPICS, Channel, parse_notices

AT = datetime(2026, 11, 23, 9, 0, tzinfo=timezone.utc)
SECRET = "hunter2-T0K3N"
MAIL = f"mailtos://hub:{SECRET}@mail.example.org"

GOOD = {
    "admins": [f"{MAIL}?to=gpu@example.org"],
    "approvers": [f"slack://{SECRET}/B/C/#gpu"],
    "group:vision": [f"mmosts://chat.example.org/{SECRET}"],
    "users": [f"{MAIL}?to={{user}}@example.org", f"json://bridge/{SECRET}?to={{address}}"],
    "addresses": {"ada": "ada@home.example.org"},
}


def test_channels_are_called_by_their_place_and_kind_never_by_their_url() -> None:
    notices = parse_notices(GOOD)
    assert [channel.name for channel in notices.channels] == [
        "admins[0] (mailtos)",
        "approvers[0] (slack)",
        "group:vision[0] (mmosts)",
        "users[0] (mailtos)",
        "users[1] (json)",
    ]
    assert SECRET not in repr(notices)
    assert notices.address("ada") == "ada@home.example.org"
    assert notices.address("grace") == ""
    assert notices.tell("users")
    assert not parse_notices({}).tell("users")


@pytest.mark.parametrize("raw", [None, {}, {"admins": []}])
def test_nobody_is_told_unless_the_admin_says_so(raw: Any) -> None:
    assert parse_notices(raw).channels == ()


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (f"json://{SECRET}", "MigBroker.notices is a str; expected a dict such as"),
        ({"admin": []}, r"there is no key 'admin' \(did you mean 'admins'\?\)"),
        ({"group:": []}, "there is no key 'group:'"),
        ({7: []}, "there is no key 7"),
        ({f"json://{SECRET}": []}, "a key looks like a URL.*expected 'admins'"),
        ({(SECRET,): []}, "a key looks like a URL"),
        ({"admins": f"json://{SECRET}"}, r"\['admins'\] is a str; expected a list"),
        ({"admins": [SECRET]}, r"\['admins'\]: entry 0 is not a URL"),
        ({"admins": [f"json://x/{SECRET}", None]}, r"\['admins'\]: entry 1 is not a URL"),
        ({"admins": [f"json://x/{SECRET}\n"]}, "entry 0 is not a URL"),
        ({"admins": [f"json://{SECRET}/{{user}}"]}, "entry 0 contains braces; only those of"),
        (
            {"users": [f"json://{SECRET}/"]},
            "entry 0 does not name the user; expected {user} or {address}",
        ),
        ({"users": [f"json://{SECRET}/{{name}}"]}, "entry 0 contains other braces"),
        ({"users": [f"json://{SECRET}/{{user.x}}"]}, "entry 0 contains other braces"),
        ({"users": ["json://x/{address}"]}, r"users\[0\] \(json\) uses {address}, but there"),
        ({"addresses": [SECRET]}, r"\['addresses'\] is a list; expected a dict"),
        ({"addresses": {"ada": 7}}, r"\['addresses'\] is a dict; expected a dict of addresses"),
        ({"admins": [f"json://x/{n}" for n in range(51)]}, "has 51 channels; expected at most 50"),
    ],
)
def test_a_mistake_is_named_and_nothing_secret_is_said(raw: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as told:
        parse_notices(raw)
    assert SECRET not in str(told.value)


@pytest.mark.parametrize(
    "raw",
    [
        {"admins": [f"json://x/{n}" for n in range(50)]},
        {"admins": ("json://x/",)},
        {"users": ["json://x/{user}"]},
        {f"group:{'a' * 255}": ["json://x/"]},
    ],
)
def test_what_is_right_is_taken(raw: Any) -> None:
    (urls,) = raw.values()
    assert [channel.url for channel in parse_notices(raw).channels] == list(urls)


@pytest.mark.parametrize("key", ["group: ", f"group:{'a' * 256}", "visitors", "vision:x"])
def test_a_group_of_people_has_a_name_of_a_possible_length(key: str) -> None:
    with pytest.raises(ConfigError, match="there is no key"):
        parse_notices({key: []})


@pytest.mark.parametrize("wrong", [{"ada": "a@x", "eve": 7}, {"ada": "a@x", 7: "b@x"}, {7: "a@x"}])
def test_every_name_and_address_is_a_text(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="expected a dict of addresses"):
        parse_notices({"addresses": wrong})


def test_a_function_may_know_the_addresses() -> None:
    known: dict[str, object] = {"ada": "ada@x", "eve": None, "joe": 7}
    notices = parse_notices({"users": ["json://x/{address}"], "addresses": known.get})
    assert [notices.address(user) for user in known] == ["ada@x", "", ""]


def test_only_channels_of_its_own_are_an_audiences() -> None:
    notices = parse_notices({"users": ["json://x/{user}"]})
    assert notices.tell("users")
    assert not notices.tell("admins")


def test_only_a_users_url_is_filled_in() -> None:
    assert Channel("admins", 0, "json://x/{user}").url_for("ada") == "json://x/{user}"


def test_a_url_without_a_scheme_is_taken_for_a_chat() -> None:
    odd = Channel("admins", 0, "nonsense")
    assert odd.name == "admins[0] (?)"
    assert "@" not in odd.shown("@all")


@given(st.text(max_size=40), st.text(max_size=40))
def test_a_name_never_changes_where_a_users_channel_leads(user: str, address: str) -> None:
    channel = Channel("users", 0, "mailtos://hub:pw@mail.example.org?to={user}@x&cc={address}")
    url = channel.url_for(user, address)
    if url is not None:
        assert url.startswith("mailtos://hub:pw@mail.example.org?to=")
        assert url.count("&") == url.count("?") == 1
        assert not set(url) & set(",; \n#\"'<>%") - set("%")
        assert "," not in user + address


@pytest.mark.parametrize(
    ("user", "found"),
    [
        ("ada", "json://x/ada"),
        ("ada@uni.example", "json://x/ada%40uni.example"),
        ("ada,eve", None),
        ("ada/../eve", None),
        ("", None),
        ("ada eve", None),
    ],
)
def test_a_name_that_no_url_can_hold_is_not_sent_to(user: str, found: str | None) -> None:
    assert Channel("users", 0, "json://x/{user}").url_for(user) == found


def happen(kind: str, actor: str = "noether", **detail: Any) -> Message | None:
    basis = {"tier": "card", "hours": 8.0, "why": "a long run", "groups": ["vision"], "server": ""}
    return message_of(Happening(kind, AT, actor, "ada", 7, 12, "GPU-1", {**basis, **detail}))


UNTIL = {"until": "2026-11-23T17:00:00Z"}


@pytest.mark.parametrize(
    ("kind", "detail", "audience", "topic", "title", "body"),
    [
        (
            *("request.created", {}, "approvers", "", "ada asks for card for 8 hours"),
            "Request 7 is waiting for a decision.\nReason: a long run",
        ),
        (
            *("request.created", {"wanted": "2026-12-01T08:00:00Z"}, "approvers", ""),
            "ada asks for card for 8 hours",
            "Request 7 is waiting for a decision.\nRequested start: Tue 01 Dec 2026 08:00 UTC.\n"
            "Reason: a long run",
        ),
        (
            *("request.seconded", {}, "approvers", ""),
            "One more approval is needed for request 7 of ada",
            "noether has approved card for 8 hours; a second approval is needed.\n"
            "Their message: a long run",
        ),
        (
            *(
                "request.reminder",
                {"why": "there has been no decision for 24 hours"},
                "approvers",
                "",
            ),
            "Request 7 of ada is still waiting",
            "ada asks for card for 8 hours.\nSo far there has been no decision for 24 hours.",
        ),
        (
            *("request.approved", {"from": "2026-11-23T09:00:00Z", **UNTIL}, "users", "requests"),
            "Your request 7 is approved",
            "You may use card for 8 hours.\nIt is valid until Mon 23 Nov 2026 17:00 UTC.\n"
            "Message from noether: a long run",
        ),
        (
            *("request.approved", {"from": "2026-11-23T12:00:00Z", **UNTIL, "why": ""}),
            *("users", "requests", "Your request 7 is approved"),
            "You may use card for 8 hours.\nIt is valid from Mon 23 Nov 2026 12:00 UTC until "
            "Mon 23 Nov 2026 17:00 UTC. A card that is reserved for it is given to others if it "
            "is not used within half an hour.",
        ),
        (
            *("request.denied", {"hours": 1}, "users", "requests", "Your request 7 is denied"),
            "You asked for card for 1 hour.\nMessage from noether: a long run",
        ),
        (
            *("request.cancelled", {}, "users", "requests", "Your request 7 is cancelled"),
            "noether has withdrawn card for 8 hours.\nReason: a long run",
        ),
        (
            *("request.expired", {"why": "nobody decided on it"}, "users", "requests"),
            "Your request 7 has expired",
            "You asked for card for 8 hours, and nobody decided on it. Ask again if you still "
            "need it.",
        ),
        (
            *("request.ending", {**UNTIL, "why": "it ends at 17:00"}, "users", "requests"),
            "Your grant 7 ends soon",
            "Your grant for card for 8 hours: it ends at 17:00.\nA server that uses it ends "
            "then; save your work first.",
        ),
        (
            *("ticket.offered", {"offered": "large", **UNTIL, "start": False}, "users", "offers"),
            "It is your turn for a GPU",
            "large is held for you until Mon 23 Nov 2026 17:00 UTC.\nStart your server before "
            "then, or it is offered to the next person.",
        ),
        (
            *("ticket.offered", {"offered": "large", **UNTIL, "start": True}, "users", "offers"),
            "It is your turn for a GPU",
            "large is held for you until Mon 23 Nov 2026 17:00 UTC.\nThe hub will start your "
            "server, unless a server with that name is running: stop that one first.",
        ),
        (
            *("ticket.lapsed", {"why": "nobody took it"}, "users", "offers"),
            "Your turn on the waiting list has passed",
            "You were waiting for card: nobody took it.\n"
            "Join the waiting list again if you still need it.",
        ),
        (
            *("ticket.cancelled", {"why": "left the group"}, "users", "offers"),
            "You are no longer on the waiting list",
            "You were waiting for card. Reason: left the group.",
        ),
        (
            *("ticket.blocked", {"why": "Your quota is used up."}, "users", "offers"),
            "Your turn on the waiting list is delayed",
            "You are waiting for card, but others can go first: Your quota is used up.\n"
            "You keep your position.",
        ),
        (
            *("lease.ending", {**UNTIL, "why": ""}, "users", "sessions"),
            "Your GPU session ends soon",
            "Your server on card ends on Mon 23 Nov 2026 17:00 UTC. Save your work first.",
        ),
        (
            *("lease.shortened", {**UNTIL, "server": "run"}, "users", "sessions"),
            "Your GPU session ends soon",
            "Your server run on card ends on Mon 23 Nov 2026 17:00 UTC. Save your work first.\n"
            "Why: a long run",
        ),
        (
            *("lease.lost", {"why": "Start again."}, "users", "sessions"),
            *("Your server has lost its GPU", "Start again."),
        ),
        (
            *("lease.unknown", {"why": "nobody can tell"}, "admins", ""),
            "It is unknown whether a session of ada is in use",
            "Session 12 of ada: nobody can tell.\n"
            "The session is not ended for being idle while this is unknown.",
        ),
        (
            *("clock.stepped", {"seconds": -7200, "why": "the clock was set back"}, "admins", ""),
            "The clock of the GPU service was set",
            "The clock was set back.\nCheck grants with a fixed date, and that the clock "
            "of the machine is synchronized.",
        ),
        (
            *("clock.paused", {"seconds": 90, "held": 2, "why": "it was off"}, "admins", ""),
            "The GPU service's machine was suspended or off",
            "It was off.",
        ),
        (
            *("lease.foreign", {"why": "process 7 (python, user bob) on the slice"}, "admins", ""),
            "A process of another user is on a slice of ada",
            "Session 12 of ada has a slice on which other users run processes: process 7 "
            "(python, user bob) on the slice.\nThese processes do not keep the session alive, "
            "and the slice is not given to anybody else while they are on it.",
        ),
        (
            *("lease.stuck", {"why": "Lease 12: pid 7.", "mend": "`kill -9 7`"}, "admins", ""),
            "A slice is still in use after a session of ada",
            "Lease 12: pid 7.\n`kill -9 7`",
        ),
        (
            *("node.port-taken", {"why": "It is eve's.", "pids": [7, 8]}, "admins", ""),
            "Another user's process took a port on noether",
            "It is eve's.\nNo token was sent to the process. Browsers may have sent it cookies "
            "while the proxy still pointed to the port: end the process, and ask the server's "
            "user to sign out of the hub.\nInspect it with: ps -fp 7,8",
        ),
        (
            *("card.lost", {"why": "Card 0 is not listed."}, "admins", ""),
            "A GPU of noether is lost",
            "Card 0 is not listed.\nSessions on it are lost, and nothing is given out on it "
            "until it is back.",
        ),
    ],
)
def test_what_people_are_told(
    kind: str, detail: dict[str, Any], audience: str, topic: str, title: str, body: str
) -> None:
    message = happen(kind, **detail)
    assert message is not None
    told = (message.audience, message.topic, message.title, message.body)
    assert told == (audience, topic, title, body)
    assert message.user == ("" if audience == "admins" else "ada")


def test_there_is_a_sentence_for_each_of_these_kinds_and_each_is_a_kind() -> None:
    assert set(events.KINDS) >= KINDS
    for kind in KINDS:
        event = Happening(kind, AT, "noether", "ada", 7, 12, "GPU-1", {"why": "x"})
        assert message_of(event) is not None, kind
    assert message_of(Happening("lease.active", AT, "", "ada")) is None
    assert message_of(Happening("of.tomorrow", AT, "", "ada")) is None


@pytest.mark.parametrize(
    ("kind", "actor", "detail"),
    [
        ("request.cancelled", "ada", {}),
        ("request.cancelled", "migspawner", {}),
        ("request.expired", "migspawner", UNTIL),
        ("ticket.cancelled", "ada", {}),
        ("ticket.cancelled", "migspawner", {"why": "the hub has deleted its user"}),
        ("clock.stepped", "migspawner", {"seconds": 5, "why": "it was set"}),
        ("clock.paused", "migspawner", {"seconds": 5000, "held": 0, "why": "it slept"}),
        ("ticket.blocked", "migspawner", {"why": ""}),
        ("ticket.blocked", "migspawner", {"why": "it cannot be served just now"}),
    ],
)
def test_nobody_is_told_what_they_know(kind: str, actor: str, detail: dict[str, Any]) -> None:
    assert happen(kind, actor, **detail) is None


def test_a_groups_approvers_hear_of_their_own_people_only() -> None:
    of_vision = happen("request.created")
    of_nobody = happen("request.created", groups=[])
    decision = happen("request.denied")
    assert of_vision is not None
    assert of_nobody is not None
    assert decision is not None
    vision, all_ = Channel("group:vision", 0, "json://x"), Channel("approvers", 0, "json://y")
    other, users = Channel("group:language", 0, "json://z"), Channel("users", 0, "json://{user}")
    heard = [of_vision.is_for(channel) for channel in (vision, all_, other, users)]
    assert heard == [True, True, False, False]
    assert [of_nobody.is_for(channel) for channel in (vision, all_)] == [False, True]
    assert [decision.is_for(channel) for channel in (vision, all_, users)] == [False, False, True]


@pytest.mark.parametrize("kind", ["ticket.offered", "lease.ending", "request.ending"])
def test_what_comes_too_late_is_of_no_use(kind: str) -> None:
    message = happen(kind, **UNTIL)
    assert message is not None
    assert message.until == AT + timedelta(hours=8)


def test_the_way_to_the_page_stands_below_where_it_is_known() -> None:
    message = happen("request.created")
    assert message is not None
    assert message.text() == message.body
    link = "https://hub.example.org/services/migspawner/"
    assert message.text(link).endswith(f"\n\n{link}decisions")


@given(st.sampled_from(sorted(KINDS)), st.text(max_size=700), st.text(max_size=300))
def test_typed_text_stays_in_its_line(kind: str, typed: str, name: str) -> None:
    """No second subject, no forged line of the broker's, no call of a whole room."""
    detail = {"tier": name, "hours": typed, "why": typed, "server": name, "offered": name}
    message = message_of(Happening(kind, AT, name, name, 7, 12, typed, {**detail, "until": typed}))
    if message is None:
        return
    assert message.title.isprintable() or "\u200b" in message.title
    assert len(message.title) <= 150
    assert len(message.body) < 1200
    quiet = happen(kind, "x", **dict.fromkeys(detail, "x"), until="x")
    assert quiet is None or len(message.body.splitlines()) <= len(quiet.body.splitlines()) + 1
    for call in ("@all", "@channel", "@here", "@everyone"):
        assert f"{call} " not in f"{message.title} {message.body} "


def test_a_room_is_not_called_by_a_reason() -> None:
    message = happen("request.created", why="please @channel and @HERE, ada@allianz.example")
    assert message is not None
    assert "please @\u200bchannel and @\u200bHERE, ada@allianz.example" in message.body


def test_topics_are_those_that_messages_have() -> None:
    found = {happen(kind, **UNTIL) for kind in KINDS - {"request.expired"}}
    assert {message.topic for message in found if message is not None} - {""} == set(TOPICS)
