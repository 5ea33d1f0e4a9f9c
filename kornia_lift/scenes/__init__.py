"""Images with known geometry, in the layouts of public data sets: what training and evaluation both read."""
