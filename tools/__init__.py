"""Command lines over shared_nets."""
