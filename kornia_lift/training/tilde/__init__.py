"""TILDE's training on aligned stacks of images (Verdie et al., CVPR 2015)."""
