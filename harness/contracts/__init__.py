"""What every member of a family keeps to, as checks that the author of a plug-in runs on his own.

The package's tests run the same checks over all registered attacks and norms.
"""

from __future__ import annotations

from harness.contracts.attack import ATTACK_CONTRACTS, AttackCase, check_attack
from harness.contracts.norm import NORM_CONTRACTS, check_norm

__all__ = ["ATTACK_CONTRACTS", "NORM_CONTRACTS", "AttackCase", "check_attack", "check_norm"]
