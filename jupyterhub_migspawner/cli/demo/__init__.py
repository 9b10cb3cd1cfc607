"""``migspawner demo``, in parts: its cards, its folder, its processes, its hub, the command."""
