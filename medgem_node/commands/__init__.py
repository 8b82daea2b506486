"""The commands of `medgem-node`, a file for each group of them; cli.py lists the files.

Each file has `add(command)`: it makes its commands, their arguments and what runs them. What runs imports the rest of
the package itself, so that `medgem-node --help` answers at once.
"""
