"""Kernels of the layers in Triton, imported only where Triton is installed and the tensors are on a CUDA device."""
