"""rfho's single-loop methods beside stochastic methods of bilevel optimisation: ``python -m benchmarks.bilevel``."""
