"""A JupyterHub that lends the MIG slices of the machine it runs on.

For a hub that runs as root and starts each server as the system user of that name. Cut the cards
first (see layouts.yaml beside this folder); `migspawner doctor -f FILE` checks the rest.
"""

import jupyterhub_migspawner

c = get_config()  # noqa

# Spawner (mig-local), service, scopes and roles. What this file says afterwards wins.
jupyterhub_migspawner.setup(c)

# Servers in systemd units, with limits of CPU and main memory ("cpus" and "memory_gib" of a tier).
# See docs/how-to/systemd.md.
# c.JupyterHub.spawner_class = "mig-systemd"

# What researchers pick. Profiles are named as `nvidia-smi mig -lgip` names them.
c.MigBroker.tiers = [
    {
        "name": "cpu",
        "title": "No GPU",
        "description": "Writing, plotting, cleaning data.",
        "profile": "none",
    },
    {
        "name": "small",
        "title": "Small",
        "description": "One slice of a card, with 4.8 GiB. Teaching, debugging, small models.",
        "profile": "1g.5gb",
        "max_hours": 24,
        "default": True,
    },
    {
        "name": "large",
        "title": "Large",
        "description": "Three slices of a card, with 19.5 GiB. For the vision group.",
        "profile": "3g.20gb",
        "groups": ["vision"],
        "max_hours": 24,
    },
    {
        "name": "card",
        "title": "Whole card",
        "description": "For jobs that keep a card busy. Ask first.",
        "profile": "whole",
        # Where cards of several models are in the machine: which of them are meant.
        # "card": "A100*",
        "approval": True,
        "max_hours": 48,
    },
]

# How much each person may have. GPU-hours are weighted: an hour on a 1g counts a seventh.
c.MigBroker.quotas = {
    "default": {"live": 1, "gpu_hours_per_week": 40},
    "group:vision": {"live": 2, "gpu_hours_per_week": 200},
}

# Who decides about whole cards, besides the hub's admins. Nobody decides for themselves.
c.MigBroker.approvers = ["group:pi"]

# Who is notified of what, through Apprise; `migspawner notices test` tries it. See
# docs/how-to/notifications.md.
# c.MigBroker.notices = {
#     "admins": ["mailtos://hub:PASSWORD@mail.example.org?to=gpu-admins@example.org"],
#     "approvers": ["slack://TOKEN_A/TOKEN_B/TOKEN_C/#gpu-requests"],
#     "users": ["mailtos://hub:PASSWORD@mail.example.org?to={user}@example.org"],
# }

# Groups may as well come from the authenticator. These names are examples.
c.JupyterHub.load_groups = {
    "vision": {"users": ["ada", "grace"]},
    "pi": {"users": ["linus"]},
}
c.Authenticator.admin_users = {"admin"}
c.Authenticator.allow_existing_users = True
c.JupyterHub.authenticator_class = "pam"

# A restart of the hub leaves notebooks running. Its systemd unit needs KillMode=process for that.
c.JupyterHub.cleanup_servers = False

# Several servers starting at once take their time to import JupyterLab.
c.Spawner.start_timeout = 120
c.Spawner.http_timeout = 120
