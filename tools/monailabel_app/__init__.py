"""MONAI Label serves every bundle of the collection: ``python -m tools.monailabel_app --help``.

MONAI Label 0.8.5 imports ``pydicom_seg``, which cannot be imported beside pydicom 3, and uses it only to read
and write segmentations of a DICOMweb server; those this app reads and writes by itself. So an empty module of
that name stands in for it.
"""

import sys
from types import ModuleType

sys.modules.setdefault("pydicom_seg", ModuleType("pydicom_seg"))
