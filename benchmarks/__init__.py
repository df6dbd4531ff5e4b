"""Time and memory of every method as ratios to plain training: ``python -m benchmarks``."""
