"""Fewer bits per weight of a Core ML package: what they cost now."""

from sd_compress.snr import SignalToNoise
from sd_compress.storage import StorageReport, StorageRow, StoredWeight, storage, stored_weights

__all__ = ["SignalToNoise", "StorageReport", "StorageRow", "StoredWeight", "storage", "stored_weights"]
