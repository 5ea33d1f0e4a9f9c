"""The modern recipe: hardest-negative descriptor, equivariant orientation, repeatable and matchable detector."""
