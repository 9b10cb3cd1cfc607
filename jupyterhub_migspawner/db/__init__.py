"""The lease database; the only place that imports SQLAlchemy and Alembic.

It knows slices, leases, requests and events, and nothing of JupyterHub. What may happen to them is
decided above, in :mod:`jupyterhub_migspawner.broker`. :mod:`.store` opens it and runs transactions,
:mod:`.tables` and :mod:`.migrations` are its schema, :mod:`.queries` its statements, and
:mod:`.allocation` gives out slices, seats and cards.
"""
