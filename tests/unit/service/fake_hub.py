"""A hub's REST API as far as the service uses it, over real HTTP, as each test wants it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from jupyterhub_migspawner.hub.scopes import SELF_SCOPE

SERVICE_TOKEN = "the-service-itself"
SERVICE_SCOPES = [
    "list:users",
    "read:users:name",
    "read:users:groups",
    "read:servers",
    "delete:servers",
    "servers",
]
ACCESS = "access:services!service=migspawner"

PAGINATED = "application/jupyterhub-pagination+json"


def server(name: str = "", *, ready: bool = True, started: datetime, **more: Any) -> dict[str, Any]:
    """A server's model as the hub gives it (jupyterhub.apihandlers.base, server_model)."""
    stamp = started.astimezone(timezone.utc).replace(tzinfo=None).isoformat() + "Z"
    return {
        "name": name,
        "ready": ready,
        "pending": None if ready else "spawn",
        "stopped": False,
        "started": stamp,
        "url": f"/@/space%20word/user/someone/{name}",
        "user_options": {},
        **more,
    }


@dataclass
class FakeHub:
    """Tokens, users with groups and servers; ``stopped`` is what was asked to be stopped, and
    ``started`` what to be started, with its options; ``active`` who said of what that it is in
    use: user, token and what was sent."""

    tokens: dict[str, dict[str, Any]] = field(default_factory=dict)
    users: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    scopes: list[str] = field(default_factory=lambda: list(SERVICE_SCOPES))
    stopped: list[tuple[str, str]] = field(default_factory=list)
    started: list[tuple[str, str, Any]] = field(default_factory=list)
    groups: dict[str, list[str]] = field(default_factory=dict)
    admins: set[str] = field(default_factory=set)
    fail_with: int = 0
    refuse_to_stop: set[str] = field(default_factory=set)
    active: list[tuple[str, str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    url: str = ""
    _server: HTTPServer | None = None

    def sign_in(
        self,
        name: str,
        *,
        groups: tuple[str, ...] = (),
        admin: bool = False,
        scopes: tuple[str, ...] | None = None,
        kind: str = "user",
    ) -> str:
        """A token of this person, with all they may do unless ``scopes`` say less."""
        if scopes is None:
            own = (f"servers!user={name}", f"start:servers!user={name}")
            scopes = (ACCESS, SELF_SCOPE, *own, *(("admin:servers",) if admin else ()))
        token = f"token-of-{name}-{len(self.tokens)}"
        self.tokens[token] = {
            "kind": kind,
            "name": name,
            "groups": list(groups),
            "admin": admin,
            "scopes": list(scopes),
        }
        self.users.setdefault(name, {})
        return token

    def listen(self) -> None:
        """Serve on a free port of the loopback address."""
        sockets = bind_sockets(0, "127.0.0.1")
        self.url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}/hub/api"
        self._server = HTTPServer(
            Application(
                [
                    (r"/hub/api/user", WhoAmI, {"hub": self}),
                    (r"/hub/api/oauth2/token", NoToken, {"hub": self}),
                    (r"/hub/api/users", Users, {"hub": self}),
                    (r"/hub/api/users/([^/]+)", User, {"hub": self}),
                    (r"/hub/api/users/([^/]+)/activity", Activity, {"hub": self}),
                    (r"/hub/api/users/([^/]+)/server", OneServer, {"hub": self}),
                    (r"/hub/api/users/([^/]+)/servers/([^/]+)", OneServer, {"hub": self}),
                ],
                log_function=lambda handler: None,
            )
        )
        self._server.add_sockets(sockets)

    def hang_up(self) -> None:
        """Be gone, as a hub that is killed."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def model(self, name: str) -> dict[str, Any]:
        """A user's model as the service's rights show it."""
        found: dict[str, Any] = {"kind": "user", "name": name, "admin": name in self.admins}
        if "read:servers" in self.scopes:
            found["servers"] = self.users[name]
        if "read:users:groups" in self.scopes:
            found["groups"] = self.groups.get(name, [])
        return found


class Answer(RequestHandler):
    def initialize(self, hub: FakeHub) -> None:
        self.hub = hub

    def prepare(self) -> None:
        self.hub.asked.append(self.request.path)
        if self.hub.fail_with:
            self.set_status(self.hub.fail_with)
            self.finish('{"message": "told to fail"}')

    @property
    def token(self) -> str:
        return self.request.headers.get("Authorization", "").partition(" ")[2]

    def reply(self, value: Any) -> None:
        self.finish(json.dumps(value))


class WhoAmI(Answer):
    def get(self) -> None:
        if self.token == SERVICE_TOKEN:
            self.reply({"kind": "service", "name": "migspawner", "scopes": self.hub.scopes})
        elif self.token in self.hub.tokens:
            self.reply(self.hub.tokens[self.token])
        else:
            self.set_status(403)
            self.reply({"message": "Forbidden"})


class NoToken(Answer):
    """Nobody finishes signing in at this hub; every code is a guess."""

    def post(self) -> None:
        self.set_status(400)
        self.reply({"error": "invalid_grant"})


class Users(Answer):
    def get(self) -> None:
        assert self.token == SERVICE_TOKEN
        if "list:users" not in self.hub.scopes:
            self.set_status(403)
            self.reply({"message": "needs list:users"})
            return
        names = sorted(name for name, servers in self.hub.users.items() if servers)
        if PAGINATED not in self.request.headers.get("Accept", ""):
            self.reply([self.hub.model(name) for name in names[:1]])
            return
        offset = int(self.get_argument("offset"))
        limit = int(self.get_argument("limit"))
        following = offset + limit
        self.reply(
            {
                "items": [self.hub.model(name) for name in names[offset:following]],
                "_pagination": {
                    "next": {"offset": following} if following < len(names) else None,
                },
            }
        )


class User(Answer):
    def get(self, name: str) -> None:
        assert self.token == SERVICE_TOKEN
        if name not in self.hub.users:
            self.set_status(404)
            self.reply({"message": "No such user"})
            return
        self.reply(self.hub.model(name))


class OneServer(Answer):
    def post(self, user: str, name: str = "") -> None:
        assert self.token == SERVICE_TOKEN
        if name in self.hub.users[user]:
            self.set_status(400)
            self.reply({"message": f"{user} is already running"})
            return
        self.hub.started.append((user, name, json.loads(self.request.body)))
        self.set_status(202)
        self.finish()

    def delete(self, user: str, name: str = "") -> None:
        assert self.token == SERVICE_TOKEN
        if user in self.hub.refuse_to_stop:
            self.set_status(400)
            self.reply({"message": "Cannot stop a server while it is being renamed"})
            return
        self.hub.stopped.append((user, name))
        del self.hub.users[user][name]
        self.set_status(204)
        self.finish()


class Activity(Answer):
    def post(self, user: str) -> None:
        self.hub.active.append((user, self.token, json.loads(self.request.body)))
        self.finish("{}")
