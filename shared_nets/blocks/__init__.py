"""Layers; they know no disease."""
