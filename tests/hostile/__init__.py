"""Files that are broken or hostile, of every kind that the package reads."""
