"""Result to JSON, picture and other files, as plain functions."""
