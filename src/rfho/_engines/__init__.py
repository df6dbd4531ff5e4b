"""The engines that methods are made of: states and adjoints back, states and tangents forward."""
