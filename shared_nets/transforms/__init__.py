"""Pure functions and the dictionary transforms around them."""
