"""A start ends with the test that began it, in these tests as in JupyterHub's own."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from jupyterhub.tests.test_api import add_user
from jupyterhub.tests.utils import get_page
from jupyterhub.user import User

#: What the first test leaves behind.
starts: list[asyncio.Future[Any]] = []


async def test_a_page_answers_while_the_start_goes_on(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = add_user(app.db, app=app, name="erik")
    answered = asyncio.Event()
    wait_up = User._wait_up

    async def wait_where_nothing_listens(self: User, spawner: Any) -> Any:
        await answered.wait()
        spawner.http_timeout = 1
        spawner.server.port = 9
        return await wait_up(self, spawner)

    monkeypatch.setattr(User, "_wait_up", wait_where_nothing_listens)
    cookies = await app.login_user("erik")
    page = await get_page("spawn", app, cookies=cookies)
    assert page.url.endswith("/hub/spawn-pending/erik")
    starts.append(user.spawner._spawn_future)
    assert not starts[0].done()
    answered.set()


async def test_it_has_ended_and_the_next_test_hears_nothing_of_it(
    app: Any, caplog: pytest.LogCaptureFixture
) -> None:
    (start,) = starts
    assert start.done()
    # asyncio reports an error that nobody awaited when it removes the task.
    starts.clear()
    del start
    gc.collect()
    assert "never" not in caplog.text
