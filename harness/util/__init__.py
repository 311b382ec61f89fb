"""Parts that every other package may use: plug-ins, validation of tables."""

__all__: list[str] = []
