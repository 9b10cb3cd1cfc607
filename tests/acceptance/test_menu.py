"""The hub's menu of services: ours has a title there, whatever else an admin has done to it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import requests

from tests.acceptance.hubs import Hub

EXTRA = """
c.JupyterHub.services = [
    *c.JupyterHub.services, {"name": "other", "url": "http://127.0.0.1:9/", "api_token": "0" * 32}
]
"""
MINE = '{% extends "templates/page.html" %}{% block announcement %}<p>Mine</p>{% endblock %}'
SERVICE = '<a class="dropdown-item" href="([^"]+)">([^<]+)</a>'


def menu(hub: Hub) -> tuple[dict[str, str], str]:
    """Addresses by title in the menu that an admin of the hub sees; and the page."""
    session = requests.Session()
    page = session.get(f"{hub.url}hub/login", timeout=150)
    xsrf = re.search(r'name="_xsrf"\s+value="([^"]+)"', page.text)
    assert xsrf is not None
    form = {"username": "admin", "password": hub.password, "_xsrf": xsrf[1]}
    session.post(f"{hub.url}hub/login?next=", data=form, timeout=150, allow_redirects=False)
    text = session.get(f"{hub.url}hub/home", timeout=150).text
    listed = text[: text.index("dark-theme-toggle")]
    return {title: href for href, title in re.findall(SERVICE, listed)}, text


@pytest.mark.parametrize(
    ("page", "title"),
    [
        ("", "GPU slices"),
        (MINE, "migspawner"),
        (MINE.replace("templates/", "migspawner/"), "GPU slices"),
    ],
    ids=["none", "their own", "extended"],
)
def test_the_menu_has_a_title_for_the_service_and_others_as_before(
    tmp_path: Path, page: str, title: str
) -> None:
    extra = EXTRA
    if page:
        folder = tmp_path / "templates"
        folder.mkdir()
        (folder / "page.html").write_text(page)
        extra += f"c.JupyterHub.template_paths = [{str(folder)!r}]\n"
    hub = Hub(tmp_path, layouts=[["1g.5gb"]], extra=extra, base_url="/team/gpu/")
    with hub.running():
        found, text = menu(hub)
        assert found == {
            title: "/team/gpu/services/migspawner/",
            "other": "/team/gpu/services/other/",
        }
        assert ("<p>Mine</p>" in text) is bool(page)
        # A page of ours, in the same menu.
        token = hub.token_of("admin")
        ours = requests.get(
            f"{hub.url}services/migspawner/",
            headers={"Authorization": f"token {token}"},
            timeout=150,
        ).text
        assert [name for _, name in re.findall(SERVICE, ours)] == [title]
