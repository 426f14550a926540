"""Rendering of results as terminal tables, Markdown and a self-contained HTML file."""
