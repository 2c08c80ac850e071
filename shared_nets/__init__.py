"""Networks, transforms, readers and writers shared by the MONAI bundles of this collection."""

__version__ = "0.1.0"
