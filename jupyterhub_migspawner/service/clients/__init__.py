"""Whom the service talks to: the hub and notebook servers."""
