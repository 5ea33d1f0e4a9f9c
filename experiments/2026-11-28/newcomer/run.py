"""Fine-tune by a preset with a budget counted in processor time: run.py RECIPE INIT MINUTES OUT, beside `dataset`."""

import functools
import sys
import time

import torch

from kornia_lift.cli import main
from kornia_lift.training import recipe

torch.set_num_threads(1)
recipe.fit = functools.partial(recipe.fit, clock=time.process_time)
recipe_name, init, minutes, out = sys.argv[1:5]
began = time.process_time()
words = ["train", recipe_name, "--data", "dataset", "--max-minutes", minutes, "--out", out]
code = main(words + ([] if init == "-" else ["--init", init]))
print(f"processor time {(time.process_time() - began) / 60:.1f} minutes")
sys.exit(code)
