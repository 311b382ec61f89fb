"""How an evaluation is run: the tasks, the workers they are spread over, and the saved state of a run."""

__all__: list[str] = []
