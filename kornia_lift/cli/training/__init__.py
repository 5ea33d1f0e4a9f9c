"""Commands that make training data, train, and look at runs."""
