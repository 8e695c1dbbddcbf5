"""Published peaks of GPUs, by the names that JAX gives them.

Source: NVIDIA's data sheets, dense products of bfloat16 (without sparsity) and bandwidth of memory.
"""

from __future__ import annotations

from benchmarks.roofline import Machine

# Part of a device's name -> FLOPs a second in bfloat16, bytes a second. The first that fits counts.
PEAKS = {
    "H200": (989e12, 4.8e12),
    "H100 NVL": (835e12, 3.9e12),
    "H100 PCIe": (756e12, 2.0e12),
    "H100": (989e12, 3.35e12),
    "A100-SXM4-40GB": (312e12, 1.555e12),
    "A100-PCIE-40GB": (312e12, 1.555e12),
    "A100-SXM4-80GB": (312e12, 2.039e12),
    "A100 80GB PCIe": (312e12, 1.935e12),
    "L40S": (362e12, 0.864e12),
    "L4": (121e12, 0.3e12),
}


def published_roof(device: str) -> Machine | None:
    """Return the roofs of a device, such as "NVIDIA H100 80GB HBM3"; None: not known."""
    words = device.split()
    for name, (flops, bandwidth) in PEAKS.items():
        # Whole words: an L4 is no L40.
        if all(word in words for word in name.split()):
            return Machine(device, {"bfloat16": flops}, read=bandwidth, copy=bandwidth)
    return None
