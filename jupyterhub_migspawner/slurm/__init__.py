"""Slurm: slices as its generic resources, and what a running cluster says of its nodes."""
