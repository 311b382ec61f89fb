"""Running statistics of batch-norm layers: those stored, estimated anew, or of the batch at hand."""

__all__: list[str] = []
