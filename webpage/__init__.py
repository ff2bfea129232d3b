"""The web page; it has no model logic of its own."""
