"""The hub-managed service: pages, REST API and the loops that keep leases and servers in step.

Runs as ``python -m jupyterhub_migspawner.service --config FILE`` under the hub. It holds no state
of its own: everything it knows is in the lease database and in the hub, so it may be killed and
started again at any moment.
"""
