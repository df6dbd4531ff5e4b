"""Implicit differentiation: the condition at the end of training, its matrix, its audit, its refusals."""
