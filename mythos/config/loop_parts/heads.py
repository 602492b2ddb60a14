"""What the parts with an attention of their own have in common."""

from mythos.config.base import PositiveInt, config


@config
class OwnHeads:
    """Heads of a part's own attention."""

    num_heads: PositiveInt = 2
    """Heads of the part's own attention."""
    head_dim: PositiveInt = 64
    """Width of one head."""

    @property
    def width(self) -> int:
        """Width of all heads together."""
        return self.num_heads * self.head_dim
