"""Inferers: from a network and its inputs to a prediction."""
