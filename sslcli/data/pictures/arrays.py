"""Files of arrays: NumPy's, and TIFFs that Pillow does not read, by tifffile."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from PIL import Image

from sslcli.data.pictures.opening import BadPicture
from sslcli.data.pictures.reading import COLOURS

NPY = b"\x93NUMPY"  # the first bytes
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_npy(file: BinaryIO) -> np.ndarray:
    """Read the array of a .npy file; objects, which would be unpickled, are refused."""
    version = npy.read_magic(file)
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    _check_size(read_header(file)[0])
    file.seek(0)
    array: np.ndarray = npy.read_array(file, allow_pickle=False)
    return array


def read_tiff(file: BinaryIO) -> np.ndarray:
    """Read the first picture of a TIFF with any number of channels.

    Raises:
        BadPicture: tifffile is not installed.
    """
    with opened_tiff(file) as tiff:
        _check_size(tiff.series[0].shape)
        array: np.ndarray = tiff.series[0].asarray()
    return array


def opened_tiff(file: BinaryIO) -> Any:
    """Open a TIFF with tifffile.

    Raises:
        BadPicture: tifffile is not installed.
    """
    try:
        import tifffile
    except ImportError:
        raise BadPicture("it needs tifffile: pip install 'sslcli[tiff]'") from None
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong with a file is told by exceptions
    return tifffile.TiffFile(file)


def _check_size(shape: Sequence[int]) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and math.prod(shape) > 2 * limit * COLOURS:
        raise BadPicture("too many pixels; dataset.max_pixels=... allows more")
