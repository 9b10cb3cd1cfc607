"""The loops of the service."""
