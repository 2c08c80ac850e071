"""Ignite handlers that write results."""
