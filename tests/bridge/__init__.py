"""The bridge to robustbench, and the reference AutoAttack as it comes."""
