"""Training of the correspondence network (Learning to Find Good Correspondences, Yi et al., CVPR 2018)."""
