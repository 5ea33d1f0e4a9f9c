"""LF-Net's training from whole images (Ono et al., NeurIPS 2018): warps, losses, stage, recipe."""
