"""Results of papers, each by one command: ``python -m benchmarks.reproduce NAME``."""
