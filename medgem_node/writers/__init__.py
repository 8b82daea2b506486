"""What makes result objects: one file for each kind of object."""
