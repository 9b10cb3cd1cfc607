"""``migspawner doctor``, one file a subject that is looked at."""
