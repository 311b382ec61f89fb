"""Results that leave this machine: as a submission to RobustBench, and as a repository of the Hugging Face Hub.

Both begin with the same evidence: a stored result, verified, with its checkpoint and its images.
"""

from __future__ import annotations

from harness.publishing.evidence import Evidence, doubts, gather

__all__ = ["Evidence", "doubts", "gather"]
