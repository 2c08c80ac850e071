"""Networks that a bundle names, one file a network."""
