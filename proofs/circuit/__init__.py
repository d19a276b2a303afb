"""Circuits over strips of lanes: cells, look-ups, products and linear relations, and their proof. See README.md."""
