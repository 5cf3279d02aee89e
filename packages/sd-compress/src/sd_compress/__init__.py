"""Fewer bits per weight of a Core ML package: what they cost now."""

from sd_compress.storage import StorageReport, StorageRow, storage

__all__ = ["StorageReport", "StorageRow", "storage"]
