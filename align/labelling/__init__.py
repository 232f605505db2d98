"""Labelling by people: which pairs are asked, the labels file, agreement, and the page. flows/label.py serves it."""
