"""Readers, datalists for public datasets, synthetic phantoms."""
