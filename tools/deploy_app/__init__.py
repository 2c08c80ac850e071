"""MONAI Deploy: one operator that runs any bundle of the collection on one study of a folder."""
