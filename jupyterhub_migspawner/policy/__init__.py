"""Pure decisions: values in, decisions out; no I/O and no clock of their own.

The same code decides in production, in simulations and in property tests.
"""
