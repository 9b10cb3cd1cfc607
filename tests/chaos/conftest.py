"""The private PostgreSQL of the store's tests is the chaos's, too."""

from tests.broker.conftest import postgres, statements_shared

__all__ = ["postgres", "statements_shared"]
