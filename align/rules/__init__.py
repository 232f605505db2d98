"""The filter's rules, a file per kind, listed in catalogue.py; pool.py is what they work on, the rest is machinery."""
