"""Readers: what a detector sees of an instance, one file for each kind of image."""
