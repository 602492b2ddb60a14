"""Kernels of the mixture of experts in Triton (``products``, ``passes``), and what they equal (``reference``).

The Triton modules are imported only where Triton is installed and the tensors are on a CUDA device.
"""

WIDTH = 64
"""What tokens' and experts' widths are multiples of, for ``products`` and ``routing``."""
MAX_EXPERTS = 512
"""Their scores of a tile of tokens stay in registers, for ``routing``."""
