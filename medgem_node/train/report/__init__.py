"""An evaluation as a page that can be read, printed and filed without this program or a network."""
