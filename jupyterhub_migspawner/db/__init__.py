"""The lease database; the only place that imports SQLAlchemy and Alembic.

It knows slices, leases, requests and events, and nothing of JupyterHub. What may happen to them is
decided above, in :mod:`jupyterhub_migspawner.broker`.
"""
