"""A demo on a machine that others use: who gets in, as whom they work then, what listens where."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

from jupyterhub_migspawner.gpu import simulator
from tests.acceptance.demos import PATIENCE, Demo, Person

ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not ROOT, reason="asks what root's demo gives to others")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    made = Demo(tmp_path_factory.mktemp("safety") / "demo")
    # A machine that has its servers and kernels listen everywhere.
    settings = tmp_path_factory.mktemp("etc")
    everywhere = {"ServerApp": {"ip": "0.0.0.0"}, "KernelManager": {"ip": "0.0.0.0"}}
    (settings / "jupyter_server_config.json").write_text(json.dumps(everywhere))
    settings.chmod(0o755)
    made.environment = {
        "JUPYTER_CONFIG_DIR": str(settings),
        "JUPYTER_CONFIG_PATH": str(settings),
        "JUPYTERHUB_SINGLEUSER_APP": "nothing.of.the.kind",
        "CONFIGPROXY_AUTH_TOKEN": "a-token-that-others-know",
        "JPY_COOKIE_SECRET": "00" * 32,
    }
    try:
        made.start("--cards", "1")
        yield made
    finally:
        made.end_everything()


async def in_a_terminal(person: Person, command: str) -> str:
    """What a command prints in a terminal of this person's server."""
    token = person.token()
    base = f"{person.demo.url}user/{person.name}/"
    headers = {"Authorization": f"token {token}"}
    made = person.post(f"{base}api/terminals", headers)
    url = f"{base}terminals/websocket/{made['name']}".replace("http:", "ws:")
    socket = await websocket_connect(HTTPRequest(url, headers=headers))
    # Put together by the shell, so that the line that is typed is not taken for what it prints.
    await socket.write_message(json.dumps(["stdin", f"({command}) 2>&1; echo do''ne\r"]))
    said = ""
    while not re.search(r"^done", said, re.MULTILINE):
        message = await socket.read_message()
        assert message is not None, said
        kind, *words = json.loads(message)
        if kind == "stdout":
            said += words[0]
    socket.close()
    return said


def servers(demo: Demo) -> dict[str, Path]:
    """The folder in /proc of each person's server."""
    found = {}
    for line in demo.left():
        if "jupyterhub-singleuser" in line:
            folder = Path("/proc") / line.split()[0]
            try:
                text = (folder / "environ").read_bytes().decode()
            except (FileNotFoundError, ProcessLookupError):  # it has ended
                continue
            found[re.search(r"JUPYTERHUB_USER=(\w+)", text)[1]] = folder  # type: ignore[index]
    return found


async def test_nobody_works_as_root_nor_reads_what_the_hub_keeps(demo: Demo) -> None:
    admin, ada = demo.log_in("admin"), demo.log_in("ada")
    for person in (admin, ada):
        person.start("small")
        person.start_kernel()
    said = await in_a_terminal(admin, "id -u; id -G; echo >mine; stat -c %a mine .; echo $HOME")
    if not ROOT:
        assert f"\n{os.geteuid()}\r" in said
        return
    assert re.search(r"\n(607|608|609|610|611)\d\d\r", said), said
    assert "\n600\r\n700\r" in said
    reads = f"cat {demo.directory}/jupyterhub_cookie_secret; cat {demo.directory}/jupyterhub.sqlite"
    reads += f"; ls {demo.directory}; cat {demo.directory}/password; echo >>{demo.directory}/cards"
    said = await in_a_terminal(admin, reads)
    assert said.count("Permission denied") + said.count("No such file") == 5, said
    assert demo.answer["password"] not in said
    # Nor what other people have: their homes, what their servers know.
    home, other = demo.directory / "accounts.json", servers(demo)["ada"]
    homes = Path(json.loads(home.read_text())["homes"])
    hers = homes / str(other.stat().st_uid)
    hub = f"/proc/{demo.answer['hub_pid']}"
    said = await in_a_terminal(admin, f"ls {homes}; ls {hers}; cat {other}/environ {hub}/environ")
    assert said.count("Permission denied") == 4, said
    said = await in_a_terminal(admin, f"kill -9 {other.name}; su -c id </dev/null; sudo -n id")
    assert "uid=0" not in said
    assert other.exists()
    # No process of theirs has a right more than it needs, kernels and terminals among them.
    for line in demo.left():
        folder = Path("/proc") / line.split()[0]
        try:
            text = (folder / "status").read_text()
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
        if any(word in line for word in ("singleuser", "ipykernel", "bash")):
            assert not re.search(r"^Uid:.*\b0\b", text, re.MULTILINE), line
            assert re.search(r"^Groups:\s*$", text, re.MULTILINE), text
            assert re.search(r"^CapPrm:\s*0+$", text, re.MULTILINE), text
            assert re.search(r"^NoNewPrivs:\s*1$", text, re.MULTILINE), text


@as_root
async def test_the_broker_still_sees_what_runs_on_a_slice(demo: Demo) -> None:
    grace = demo.log_in("grace")
    grace.start("small")
    grace.start_kernel()
    (kernel,) = [
        int(line.split()[0])
        for line in demo.left()
        if "ipykernel" in line and f"{servers(demo)['grace'].stat().st_uid}" == uid_of(line)
    ]
    (lease,) = [each for each in demo.cli("leases") if each["user"] == "grace"]
    cards = str(demo.directory / "cards.json")
    simulator.add_process(cards, lease["slice_uuid"], kernel, 500)
    assert grace.api("DELETE", "users/grace/server").status_code in (202, 204)
    demo.until(lambda: not [each for each in demo.cli("leases") if each["user"] == "grace"])
    assert not Path(f"/proc/{kernel}").exists()


def uid_of(line: str) -> str:
    return str(Path(f"/proc/{line.split()[0]}").stat().st_uid)


def test_a_link_signs_in_once(demo: Demo) -> None:
    link = demo.link("linus")
    # What only looks ahead, or stands in another site's page, uses nothing up.
    assert requests.head(link, timeout=PATIENCE).status_code == 405
    assert requests.post(link, timeout=PATIENCE).status_code == 405
    for headers in (
        {"Sec-Purpose": "prefetch;prerender"},
        {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "image"},
        {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "iframe"},
    ):
        assert requests.get(link, headers=headers, timeout=PATIENCE).status_code == 403
    with ThreadPoolExecutor(16) as pool:
        sessions = [requests.Session() for _ in range(16)]

        def follow(session: requests.Session) -> int:
            return session.get(link, allow_redirects=False, timeout=PATIENCE).status_code

        statuses = list(pool.map(follow, sessions))
    assert sorted(statuses) == [302] + [403] * 15
    used = sessions[statuses.index(302)]
    page = used.get(f"{demo.url}hub/home", timeout=PATIENCE)
    assert "linus" in page.text
    assert page.url == f"{demo.url}hub/home"
    for session in sessions:
        if session is not used:
            assert "/hub/login" in session.get(f"{demo.url}hub/home", timeout=PATIENCE).url
    refused = requests.get(link, timeout=PATIENCE)
    assert "was already used" in refused.text
    assert refused.headers["Cache-Control"] == "no-store"
    key = link.partition("key=")[2]
    assert requests.get(link.replace(key, "guessed"), timeout=PATIENCE).status_code == 403
    assert requests.get(link.partition("?")[0], timeout=PATIENCE).status_code == 403
    # Nothing that hub or proxy have written down could have been used.
    assert "/hub/demo-login" in demo.log()
    assert key not in demo.log()


def test_it_prints_a_link_for_each_person_at_its_start(demo: Demo) -> None:
    links = demo.answer["login_links"]
    assert list(links) == demo.answer["users"]
    for link in links.values():
        address, _, key = link.partition("?key=")
        assert address == f"{demo.url}hub/demo-login"
        # What the hub finds it by, until it is used or too old.
        assert (demo.directory / "login-links" / hashlib.sha256(key.encode()).hexdigest()).exists()


def test_a_link_of_another_person_ends_what_this_browser_could_do(demo: Demo) -> None:
    browser = requests.Session()
    answer = browser.get(demo.link("grace"), timeout=PATIENCE)
    assert answer.ok, answer.text
    browser.get(f"{demo.url}services/migspawner/", timeout=PATIENCE)
    answer = browser.get(demo.link("admin"), timeout=PATIENCE)
    assert answer.ok, answer.text
    home = browser.get(f"{demo.url}hub/home", timeout=PATIENCE)
    assert "admin" in home.text
    assert "grace" not in home.text


def test_wrong_passwords_are_limited_and_links_are_not(demo: Demo) -> None:
    stranger = requests.Session()
    stranger.get(f"{demo.url}hub/login", timeout=PATIENCE)
    xsrf = stranger.cookies.get("_xsrf", path="/hub/")

    def guess(password: str) -> int:
        form = {"username": "admin", "password": password, "_xsrf": xsrf}
        cookies = requests.utils.dict_from_cookiejar(stranger.cookies)
        answer = requests.post(
            f"{demo.url}hub/login",
            data=form,
            cookies=cookies,
            allow_redirects=False,
            timeout=PATIENCE,
        )
        return answer.status_code

    # Known to all, empty, or the user's own name: what is tried first.
    with ThreadPoolExecutor(20) as pool:
        tried = list(pool.map(guess, ["demo", "", "admin", "password"] * 30))
    assert 302 not in tried
    assert set(tried) == {403, 429}
    # A few come back with time; far from all of these were looked at.
    assert tried.count(403) < 60
    link = demo.link("ada")
    assert requests.get(link, allow_redirects=False, timeout=PATIENCE).status_code == 302
    assert stranger.get(f"{demo.url}hub/login", timeout=PATIENCE).status_code == 200


def test_everything_listens_on_loopback_alone(demo: Demo) -> None:
    ada = demo.log_in_by_link("ada") if not servers(demo).get("ada") else None
    if ada is not None:
        ada.start("cpu")
        ada.start_kernel()
    # The proxy's two, the hub, the service, a server, and five of its kernel.
    demo.until(lambda: len(listening(demo)) >= 10)
    found = listening(demo)
    assert all(address.startswith("127.0.0.1:") for address in found), found


def listening(demo: Demo) -> list[str]:
    """Where this demo's processes listen (``ss -ltnp``)."""
    ours = {line.split()[0] for line in demo.left()}
    done = subprocess.run(["ss", "-H", "-ltnp"], capture_output=True, text=True, check=True)
    return [
        line.split()[3]
        for line in done.stdout.splitlines()
        if ours & set(re.findall(r"pid=(\d+)", line))
    ]


def test_what_it_keeps_is_closed_to_others(demo: Demo) -> None:
    assert stat.S_IMODE(demo.directory.stat().st_mode) == 0o700
    for path in demo.directory.rglob("*"):
        if not path.is_symlink() and not path.is_socket():
            mode = 0
            with suppress(FileNotFoundError):  # SQLite's journals come and go
                mode = stat.S_IMODE(path.stat().st_mode)
            assert not mode & 0o077, (path, oct(mode))
    # Nor does any process show the password, or the log.
    password = demo.answer["password"].encode()
    for line in demo.left():
        for name in ("cmdline", "environ"):
            content = b""
            with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
                content = Path(f"/proc/{line.split()[0]}/{name}").read_bytes()
            assert password not in content, line
    assert demo.answer["password"] not in demo.log()


def test_foreign_folders_and_known_passwords_are_refused(demo: Demo, tmp_path: Path) -> None:
    other = Demo(tmp_path / "other")
    other.directory.mkdir(mode=0o755)
    (other.directory / "thesis.tex").write_text("")
    assert "contains other files" in other.refused()
    assert stat.S_IMODE(other.directory.stat().st_mode) == 0o755
    (other.directory / "thesis.tex").unlink()
    text = demo.config.read_text()
    other.config.write_text(text + 'c.DummyAuthenticator.password = "demo"\n')
    assert "publicly known" in other.refused()
    if ROOT:
        other.config.write_text(text)
        os.chown(other.directory, 60700, 60700)
        assert "belongs to user 60700" in other.refused()


def test_it_stops_and_starts_again_as_safe(demo: Demo, tmp_path: Path) -> None:
    password, links = demo.answer["password"], demo.answer["login_links"]
    assert demo.stop(signal.SIGTERM) == 0
    assert demo.left() == []
    hub = subprocess.Popen(
        [sys.executable, "-m", "jupyterhub", "-f", str(demo.config)],
        cwd="/",
        env={"PATH": os.defpath, "HOME": str(tmp_path), **demo.environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        umask=0o022,
    )
    try:
        demo.until(lambda: answers(demo.url))
        # A link is of the start that has printed it.
        for link in links.values():
            assert requests.get(link, timeout=PATIENCE).status_code == 403
        ada = demo.log_in("ada")
        ada.start("cpu")
        ada.start_kernel()
        if ROOT:
            assert servers(demo)["ada"].stat().st_uid != 0
        test_everything_listens_on_loopback_alone(demo)
        test_what_it_keeps_is_closed_to_others(demo)
    finally:
        hub.terminate()
        hub.wait(PATIENCE)
    demo.until(lambda: demo.left() == [])
    demo.start()
    assert demo.answer["password"] == password
    assert demo.answer["login_links"] != links


def answers(url: str) -> Any:
    try:
        return requests.get(f"{url}hub/health", timeout=10).status_code == 200
    except requests.RequestException:
        return False
