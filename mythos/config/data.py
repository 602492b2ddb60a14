"""Which tokens a run reads, and in what portions."""

from mythos.config.base import Count, PositiveInt, config


@config
class DataConfig:
    """Packed shards under ``dir``, as written by ``mythos-data pack``."""

    dir: str
    seq_len: PositiveInt
    batch_size: PositiveInt
    """Sequences in one optimiser step, over all devices and micro-batches."""
    micro_batch_size: PositiveInt
    """Sequences that one device processes at a time."""
    mask_documents: bool = True
    """Keep tokens from attending across documents."""
    num_workers: Count = 0
    """Processes that read ahead; they change no sample's place in the stream."""

    def __post_init__(self) -> None:
        if self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size is {self.batch_size} and micro_batch_size is {self.micro_batch_size}; "
                "a step is a whole number of micro-batches, so the first must be a multiple of the second."
            )
