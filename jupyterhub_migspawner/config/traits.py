"""The traits that an admin sets, and what the settings open: lease database and NVML.

Relies on traitlets alone (not on a running hub), so that hub, service, agent and command line come
to the same settings from the same configuration. Promises that a mistake is found
before anything starts, in a sentence that names the tier or quota, the field, what was found and
what was expected.
"""

from __future__ import annotations

import os
import socket
import threading
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitlets import Any as AnyTrait
from traitlets import Bool, Float, Integer, TraitError, Unicode
from traitlets.config import LoggingConfigurable

from jupyterhub_migspawner.broker import Broker, utc_now
from jupyterhub_migspawner.config.file import expanded, home_of
from jupyterhub_migspawner.config.settings import read_settings, read_usernames, refuse_unknown
from jupyterhub_migspawner.config.usernames import Usernames
from jupyterhub_migspawner.db.store import Store
from jupyterhub_migspawner.errors import ConfigError
from jupyterhub_migspawner.keys import KeyFile
from jupyterhub_migspawner.model.hubs import DEFAULT_HUB
from jupyterhub_migspawner.policy.commands import Command, parse_commands
from jupyterhub_migspawner.policy.settings import Settings

if TYPE_CHECKING:
    from jupyterhub_migspawner.gpu.nvml import Nvml

#: Settings that may hold passwords, so that no error shows their values.
SECRETS = ("database_url", "dcgm_url", "notices")


class MigBroker(LoggingConfigurable):
    """What the broker lends, to whom, and where it keeps its leases.

    An object opens its lease database and NVML once, when they are first needed. A process makes
    one where it begins and passes it on.
    """

    tiers = AnyTrait(
        [],
        help="""
        What researchers can pick: a list of dicts with ``name`` and ``profile`` (a MIG profile as
        the driver names it, such as ``1g.5gb``; ``whole`` for a whole card; ``none`` for no GPU),
        and optionally ``title``, ``description``, ``approval``, ``max_hours``, ``idle_minutes``,
        ``default``, ``mig`` (for whole cards), ``seats`` (how many sessions share a slice),
        ``cpus`` and ``memory_gib`` (of the machine, for each server) and ``card`` (which cards it
        means, by model such as ``A100*`` or memory such as ``>=40GB``).
        The tier is open to the users in ``users``, the members of ``groups``, and those for whom
        ``allow`` returns True, a function of a person (with ``name``, ``groups`` and ``admin``);
        without any of these to everybody. The groups in ``seen_by``, or ``"everybody"``, see the
        tier without being able to use it.
        """,
    ).tag(config=True)
    quotas = AnyTrait(
        {},
        help="""
        Limits for each person: a dict with keys ``default``, ``group:NAME`` and ``user:NAME`` and
        dicts with ``servers``, ``live``, ``gpu_hours_per_week``, ``gpu_hours_per_month`` and
        ``whole_cards`` as values. GPU-hours are weighted by the slice's share of a card's compute.
        """,
    ).tag(config=True)
    approvers = AnyTrait(
        [],
        help="""
        Who may approve requests, in addition to the hub's admins: a list of ``user:NAME`` and
        ``group:NAME``, and of dicts such as ``{"approvers": ["user:eve"], "tiers": ["card"],
        "for_groups": ["vision"]}`` that limit approvers to these tiers, and to requests of people
        who were in one of these groups at the time. Nobody can approve their own request.
        """,
    ).tag(config=True)
    default_tier = AnyTrait(
        "",
        help="""
        The tier a server gets if none was picked: a name; or a dict of names with the keys
        ``"user:NAME"``, ``"group:NAME"`` (the first of the person's groups counts) and
        ``"default"``; or a function of a person (with ``name``, ``groups`` and ``admin``) that
        returns a name or None. If it is empty, or names no tier that the person may use, the server
        gets the tier marked ``default``, or else the first tier that the person may use without
        approval.
        """,
    ).tag(config=True)
    actions_per_minute = Integer(
        60,
        help="""
        How many changes one person can make in a minute at this hub: to requests, drafts, tickets,
        extensions, choices of notices and decisions. Further changes are refused, with the time to
        try again. Admins of the hub and the command line have no limit; 0 means no limit for
        anybody.
        """,
    ).tag(config=True)
    database_url = Unicode(
        "sqlite:///migspawner.sqlite",
        help="""
        The lease database: ``sqlite:///FILE`` (relative to ``directory``) on one machine,
        ``postgresql://USER:PASSWORD@HOST/NAME`` if there is more than one node.
        """,
    ).tag(config=True)
    key_file = Unicode(
        "migspawner_key",
        help="""
        The file with the hub's own key, relative to ``directory``. The hub uses it to encrypt the
        tokens of people's servers in the lease database. The hub creates the file with mode 0600;
        each hub has its own. Without it, the use of running sessions is unknown.
        """,
    ).tag(config=True)
    directory = Unicode(
        "",
        help="""
        The folder that relative paths refer to, in all processes. ``setup(c)`` sets it to the
        folder of the configuration file; empty means the current folder.
        """,
    ).tag(config=True)
    nvml = Unicode(
        "",
        help="""
        The NVML library with which cards are read: ``sim:FILE`` for simulated cards; empty for the
        value of the environment variable MIGSPAWNER_NVML, or else the driver's own library.
        """,
    ).tag(config=True)
    hub = Unicode(
        DEFAULT_HUB,
        help="""
        The name of this hub in its lease database. If several hubs share a database, each needs a
        different name. When the name changes, leases and requests move to the new name.
        """,
    ).tag(config=True)
    hub_home = Unicode(
        help="""
        Distinguishes this hub from another one with the same name. Default: its machine and its
        configuration file. Set it if these change while the hub stays the same, as in containers.
        """,
    ).tag(config=True)
    node = Unicode(help="The name of this machine in the lease database.").tag(config=True)
    only_node = Unicode(
        "",
        help="""
        The node on which this hub's servers run, if they run on one: the hub gives out the slices
        of that node only. Spawners that start servers on the hub's machine, such as ``mig-local``,
        set it to ``node``. Empty means all nodes.
        """,
    ).tag(config=True)
    pending_seconds = Integer(
        300,
        min=10,
        help="""
        Seconds a start may take from its lease to the running server before the lease is checked.
        """,
    ).tag(config=True)
    heartbeat_seconds = Integer(
        60,
        min=5,
        help="Seconds of silence after which a node gets no new leases. It keeps those it has.",
    ).tag(config=True)
    tick_seconds = Float(
        1.0, min=0.05, help="Seconds between two checks of leases and cards by the agent."
    ).tag(config=True)
    reconcile_seconds = Float(
        20.0,
        min=0.05,
        max=60.0,
        help="Seconds between two comparisons of the leases with the hub's servers.",
    ).tag(config=True)
    offer_minutes = Integer(
        10,
        min=1,
        help="""
        Minutes for which an offer from the waiting list is held for its user, before it goes to the
        next user in the list.
        """,
    ).tag(config=True)
    remind_hours = Integer(
        24, min=1, help="Hours after which approvers are reminded of a request."
    ).tag(config=True)
    grant_warning_minutes = Integer(
        60, min=1, help="Minutes before the end of a grant at which its user is warned."
    ).tag(config=True)
    warn_minutes = Integer(
        15, min=1, help="Minutes before the end of a session's time at which its user is warned."
    ).tag(config=True)
    examine_seconds = Float(
        60.0,
        min=0.05,
        max=3600.0,
        help="""
        Seconds between two checks whether sessions of tiers with ``idle_minutes`` are in use. After
        three checks without an answer the use of a session is unknown, and unknown use never ends a
        session. At most an hour.
        """,
    ).tag(config=True)
    unknown_minutes = Integer(
        30,
        min=1,
        help="""
        Minutes for which the use of a session can be unknown before admins are notified.
        """,
    ).tag(config=True)
    unproven_hours = Integer(
        6,
        min=1,
        help="""
        Hours for which a session can claim to be in use, for example with a busy kernel, while none
        of its processes works and its slice is not used, before admins are notified.
        """,
    ).tag(config=True)
    dcgm_url = Unicode(
        "",
        help="""
        The address of a node's dcgm-exporter, such as ``http://localhost:9400/metrics``. It
        measures the use of slices of Ampere cards, which NVML does not. Once it is set and NVML
        does not measure, it has to answer: otherwise the use of sessions is unknown.
        """,
    ).tag(config=True)
    notices = AnyTrait(
        {},
        help="""
        Channels for notices of requests, decisions, offers, ending sessions and lost cards, through
        Apprise: a dict of lists of Apprise URLs. ``admins`` are notified of lost cards and other
        problems, ``approvers`` of every request, ``group:NAME`` of requests of people in that
        group, and ``users`` of their own affairs; in the URLs of ``users``, ``{user}`` and
        ``{address}`` are replaced. ``addresses`` is a dict or a function from a user's name to an
        address.
        """,
    ).tag(config=True)
    time_zone = Unicode(
        "",
        help="""
        The time zone of times in mails and other notices: an IANA name such as ``Europe/Berlin``.
        Empty means the zone of the machine that runs the hub. Pages use the reader's zone, the
        command line uses that of its machine.
        """,
    ).tag(config=True)
    event_days = Integer(
        400,
        min=0,
        help="""
        Days for which single events are kept; 0 means forever. Older events are replaced by counts
        for each month, person, tier, profile and card. Leases and requests themselves are always
        kept, and so are the events of live leases and open requests.
        """,
    ).tag(config=True)
    before_cut = AnyTrait(
        [],
        help="""
        Commands to run, one after the other and without a shell, before cards are cut: each a
        string or a list of words. They can stop monitoring that has cards open. If a command fails,
        nothing is cut. Their environment has MIGSPAWNER_NODE, MIGSPAWNER_CARD_UUID and
        MIGSPAWNER_CARD_INDEX, with commas between several cards.
        """,
    ).tag(config=True)
    after_cut = AnyTrait(
        [],
        help="""
        Commands to run after cards were cut, even if the cut failed. They should restart everything
        that ``before_cut`` stopped.
        """,
    ).tag(config=True)
    hook_seconds = Float(
        60.0, min=0.1, help="Seconds one command of before_cut or after_cut may take."
    ).tag(config=True)
    allow_gpu_reset = Bool(
        False,
        help="""
        Whether MIG may be turned off on cards of this machine for tiers with ``"mig": "off"``. On
        an A100 or A30 this resets the card, and with NVLink perhaps its neighbours.
        """,
    ).tag(config=True)
    usernames = AnyTrait(
        {},
        help="""
        The hub's names of people, by their names in this file. Only needed for an authenticator
        with a custom ``normalize_username`` that cannot be called outside the hub. Otherwise the
        hub's authenticator normalizes names; JupyterHub's own authenticators convert them to lower
        case and apply ``username_map``.
        """,
    ).tag(config=True)
    agent = Bool(
        True,
        help="""
        Whether the hub's service runs the agent of the hub's machine. False for a hub on a machine
        without cards, whose nodes run ``migspawner agent``.
        """,
    ).tag(config=True)
    service = Bool(
        True, help="Whether the hub runs the broker's service (pages, REST, agent and loops)."
    ).tag(config=True)

    def __init__(self, **kwargs: Any) -> None:
        try:
            super().__init__(**kwargs)
        except TraitError as error:
            for name in SECRETS:
                if f"'{name}'" in str(error):
                    raise ConfigError(f"MigBroker.{name} is no text; expected a URL.") from None
            raise ConfigError(f"MigBroker: {error}") from None
        self._open_lock = threading.Lock()
        refuse_unknown(self.config, self.class_trait_names(config=True))

    #: Whether a lease database that is not there is made.
    may_create = True

    #: Whether settings without any tier are a mistake. Cards are cut before tiers are written.
    tiers_needed = True

    _broker: Broker | None = None
    _nvml: Nvml | None = None
    _key_file: KeyFile | None = None
    _settings: Settings | None = None
    _usernames: Usernames | None = None

    def _hub_home_default(self) -> str:
        return home_of(self._base())

    def _node_default(self) -> str:
        return socket.gethostname()

    @property
    def known_as(self) -> Usernames:
        """The hub's names of the people that its file names. Raises :exc:`ConfigError`."""
        if self._usernames is None:
            self._usernames = read_usernames(self)
        return self._usernames

    def settings(self) -> Settings:
        """Return what the broker decides with, checked once. Raises :exc:`ConfigError`."""
        if self._settings is None:
            self._settings = read_settings(self)
        return self._settings

    def resolved_database_url(self) -> str:
        """Return the database URL with a relative SQLite path made absolute."""
        prefix = "sqlite:///"
        if not self.database_url.startswith(prefix):
            return self.database_url
        path = self.database_url[len(prefix) :]
        if path in ("", ":memory:"):
            return self.database_url  # several processes share it: the store refuses these
        return f"{prefix}{self._base() / expanded(path)}"

    def hook_commands(self) -> tuple[tuple[Command, ...], tuple[Command, ...]]:
        """Return what to run before and after a cut. Raises :exc:`ConfigError`."""
        return (
            parse_commands("before_cut", self.before_cut),
            parse_commands("after_cut", self.after_cut),
        )

    def resolved_directory(self) -> Path:
        """Return the folder where relative paths start."""
        return self._base()

    def key_file_of_hub(self) -> KeyFile:
        """Return the hub's key file; nothing is read or created yet."""
        if self._key_file is None:
            self._key_file = KeyFile(self._base() / os.path.expanduser(self.key_file))
        return self._key_file

    def resolved_nvml(self) -> str:
        """Return the NVML to use, with a relative state file made absolute."""
        if not self.nvml.startswith("sim:"):
            return self.nvml
        return f"sim:{self._base() / expanded(self.nvml[len('sim:') :])}"

    @property
    def simulated(self) -> bool:
        """Whether the cards are simulated, so that their device nodes need not exist."""
        spec = self.nvml or os.environ.get("MIGSPAWNER_NVML", "").strip()
        return spec.startswith("sim:")

    def _base(self) -> Path:
        return expanded(self.directory) if self.directory else Path.cwd()

    def open_broker(self) -> Broker:
        """Return the broker over the configured database, which is opened by the first call.

        Makes the lease database when there is none, where it may. Raises :exc:`ConfigError` and
        :exc:`DatabaseError`.
        """
        with self._open_lock:
            if self._broker is None:
                settings = self.settings()
                store = Store.open(self.resolved_database_url(), create=self.may_create)
                self._broker = Broker(store, settings)
            return self._broker

    def moment(self) -> datetime:
        """Return the time that leases use, aware, in UTC; never waits for the database."""
        broker = self._broker
        return utc_now() if broker is None else broker.now()

    def open_nvml(self) -> Nvml:
        """Return NVML as configured, the same each time. Nothing is loaded before its first use."""
        from jupyterhub_migspawner.gpu.nvml import Nvml

        with self._open_lock:
            if self._nvml is None:
                self._nvml = Nvml(self.resolved_nvml() or None)
            return self._nvml
