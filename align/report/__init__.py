"""The report: chapters of findings, tables and charts, put together by page.py."""
