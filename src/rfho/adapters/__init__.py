"""What other libraries need to work with this one, a file for each; the library is imported where it is used.

from rfho.adapters.optuna import refine
"""
