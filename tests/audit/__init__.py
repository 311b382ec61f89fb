"""What casts doubt on a figure is said once, in records."""
