"""Graders and judges, listed in graders.py, and the sandbox in which SQL that a model wrote runs."""
