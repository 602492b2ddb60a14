import torch

torch.set_num_threads(1)  # the tensors of tests are too small to share
