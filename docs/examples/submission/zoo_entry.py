# DRAFT, not a submission: 1 rule not met.
# Written by robust-harness 0.1.0 (MIT license) for RobustBench.
# To add to robustbench/model_zoo/digits.py: first the import,
from robustbench.model_zoo.architectures.contributors2026example_draft import Contributors2026Example_DRAFTNet

# then these lines, in the dictionary of Linf models.
ENTRY = (
    "Contributors2026Example_DRAFT",
    {
        "model": Contributors2026Example_DRAFTNet,
        "gdrive_id": "",  # of the weights, once they are uploaded
    },
)
