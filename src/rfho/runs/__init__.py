"""A run on disk: folder, settings, history, tables, pictures, report and commands."""
