"""Records of evaluations, their files, statistics over them, and the leaderboards that rank them."""

__all__: list[str] = []
