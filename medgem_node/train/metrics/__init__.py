"""How well a model does, a file for each kind of question."""
