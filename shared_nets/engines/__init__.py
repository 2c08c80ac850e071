"""Ignite engines: how a run goes through its studies."""
