"""The recipe of the LIFT paper (Sec. 3.1 to 3.5): Siamese training on quadruplets of patches."""
