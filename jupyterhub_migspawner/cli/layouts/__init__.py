"""``migspawner layout``, in parts: the commands, and how a layout is rolled out to cards."""
