"""Training and evaluation of the models under `models/`; the node never imports this."""
