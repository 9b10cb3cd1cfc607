"""What a starting hub needs of the broker: its service, its proxy, its accounts."""
