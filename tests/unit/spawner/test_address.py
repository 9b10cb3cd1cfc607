"""Where a server answers itself, from whatever a spawner's start has returned."""

from __future__ import annotations

from typing import Any

import pytest

from jupyterhub_migspawner.spawner.address import server_address


@pytest.mark.parametrize(
    ("returned", "internal_ssl", "found"),
    [
        (("127.0.0.1", 8888), False, "http://127.0.0.1:8888/user/ada/"),
        (("10.0.0.7", "8888"), True, "https://10.0.0.7:8888/user/ada/"),
        (("::1", 8888), False, "http://[::1]:8888/user/ada/"),
        (("", 8888), False, "http://127.0.0.1:8888/user/ada/"),
        ("http://node3:4000", False, "http://node3:4000/user/ada/"),
        ("https://node3:4000/elsewhere", True, "https://node3:4000/user/ada/"),
        (None, False, ""),
        ("", False, ""),
        ("nonsense", False, ""),
        (("only one",), False, ""),
    ],
)
def test_a_server_is_asked_where_the_hub_would(
    returned: Any, internal_ssl: bool, found: str
) -> None:
    address = server_address(returned, base_url="/user/ada/", internal_ssl=internal_ssl)
    assert address == found
