"""Kernels of the mixture of experts in Triton (``products``, ``passes``), and what they equal (``reference``).

The Triton modules are imported only where Triton is installed and the tensors are on a CUDA device.
"""

WIDTH = 64
"""What both widths of an expert are multiples of, for ``products``."""
