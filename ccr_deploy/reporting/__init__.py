"""Results to terminal tables, Markdown and one self-contained HTML file. Imports no stage."""
