"""A run on disk: folder, settings, history, snapshots, tables, pictures, report and commands.

Needs the extra ``rfho[cli]``.
"""

from rfho.runs.run import Run

__all__ = ["Run"]
