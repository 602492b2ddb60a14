"""Kernels of the mixture of experts, and their reference implementation (``reference``).

``hopper`` has Triton kernels (``products``, ``memory_bound``), ``cute`` also those of quack-kernels. They are imported
only where their compiler is installed and the tensors are on a CUDA device.
"""

WIDTH = 64
"""``products`` and ``routing`` support widths of tokens and experts that are multiples of this."""
MAX_EXPERTS = 512
"""Limit of ``routing``, which holds the scores of a tile of tokens in registers."""
