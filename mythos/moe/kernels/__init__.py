"""Kernels of the mixture of experts, and what they equal (``reference``).

``hopper`` has Triton's (``products``, ``passes``), ``cute`` those of quack-kernels among them. They are imported only
where their compiler is installed and the tensors are on a CUDA device.
"""

WIDTH = 64
"""What tokens' and experts' widths are multiples of, for ``products`` and ``routing``."""
MAX_EXPERTS = 512
"""Their scores of a tile of tokens stay in registers, for ``routing``."""
