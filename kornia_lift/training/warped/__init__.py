"""Pairs of warped crops, and the common part of the stages that train a detector on them."""
