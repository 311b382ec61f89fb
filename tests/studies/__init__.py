"""Studies: what a file may say, what is done in which order and never twice, and how claims are judged."""
