"""Servers behind the walls of each launcher, with real device nodes and real engines."""
