"""The same problems in PyTorch, in an environment of their own."""
