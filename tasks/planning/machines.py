"""GPUs, and the time that arithmetic and memory traffic take on them.

A roofline: what is computed takes the larger of its operations by the rate of the tensor cores and its bytes by the
bandwidth, at the share of both that well-fed kernels reach. Decoding reads all weights for every token, and each layer
costs the host a fixed time. NOT checked on a GPU: none was at hand where this was written; take the seconds as an order
of magnitude, and measure a step.
"""

from dataclasses import dataclass

GB = 1e9


@dataclass(frozen=True)
class Gpu:
    """Data sheets: dense bfloat16 operations a second with float32 sums, those of float32 (no tensor cores: PyTorch
    rounds nothing to TF32 unless it is asked to), bytes, bytes a second.
    """

    flops: float
    single: float
    memory: float
    bandwidth: float

    def rate(self, dtype: str) -> float:
        """Operations a second of large products of this type."""
        return (self.single if dtype == "float32" else self.flops) * SHARE_OF_FLOPS


GPUS = {
    "H200": Gpu(989e12, 67e12, 141 * GB, 4.8e12),
    "H100": Gpu(989e12, 67e12, 80 * GB, 3.35e12),  # SXM
    "A100": Gpu(312e12, 19.5e12, 80 * GB, 2.04e12),  # SXM, 80 GB
    "4090": Gpu(165e12, 82.6e12, 24 * GB, 1.01e12),
}
SHARE_OF_FLOPS = 0.4  # of large products in eager PyTorch
SHARE_OF_BANDWIDTH = 0.6
LAYER_SECONDS = 0.4e-3  # of the host, a layer and token: about 40 kernels of 10 microseconds
USABLE = 0.9  # of the memory: the allocator's gaps and CUDA's own


def computing(gpu: Gpu, dtype: str, flops: float) -> float:
    """Seconds of large products."""
    return flops / gpu.rate(dtype)


def writing(gpu: Gpu, dtype: str, flops: float, steps: int, layers: int, read: float) -> float:
    """Seconds of decoding: `steps` tokens one after the other, `read` bytes of weights, keys and values for each."""
    each = max(flops / steps / gpu.rate(dtype), read / (gpu.bandwidth * SHARE_OF_BANDWIDTH))
    return steps * max(each, layers * LAYER_SECONDS) if steps else 0.0
