"""Reasons to doubt a figure: the kinds of flags that there are, and the record that a result carries."""

__all__: list[str] = []
