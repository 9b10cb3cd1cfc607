"""What a request may carry and who sends it: bodies, rights, limits, errors, connections."""
