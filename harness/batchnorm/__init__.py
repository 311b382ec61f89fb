"""Running statistics of batch-norm layers: those stored, re-estimated, or of the batch at hand."""

__all__: list[str] = []
