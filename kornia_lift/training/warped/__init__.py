"""Pairs of warped crops, and what the stages share that train a detector on them."""
