"""Train the three networks: losses, stages and the loop. Needs the extra ``kornia_lift[train]``."""
