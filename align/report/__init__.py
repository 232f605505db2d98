"""The report: chapters of findings, tables and charts, put together by page.py."""

FORMAT = 1
"""The version of what content.py finds; what another version wrote down is found anew."""
