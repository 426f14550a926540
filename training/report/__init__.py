"""The report on trainings: tables, Markdown and HTML."""
