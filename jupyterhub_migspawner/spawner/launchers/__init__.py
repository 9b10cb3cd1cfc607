"""Ready spawner classes."""
