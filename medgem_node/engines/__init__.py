"""What runs jobs: one file for each kind of engine."""
