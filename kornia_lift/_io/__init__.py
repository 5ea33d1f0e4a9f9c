"""Files in and out: images to tensors, bounded reading of what may be damaged, writing that leaves whole files."""

from kornia_lift._io.decode import header, opened
from kornia_lift._io.images import (
    IMAGE_SUFFIXES,
    SUFFIXES,
    ImageFileError,
    describe_unread,
    exif_orientation,
    list_images,
    list_unread_images,
    load_image,
)
from kornia_lift._io.reading import (
    DamagedFileError,
    check_regular,
    parse_json,
    read_bytes,
    read_json,
    read_npy,
    read_npz,
    read_text,
)
from kornia_lift._io.writing import atomic_write, check_writable, write_npz

__all__ = [
    "IMAGE_SUFFIXES",
    "SUFFIXES",
    "DamagedFileError",
    "ImageFileError",
    "atomic_write",
    "check_regular",
    "check_writable",
    "describe_unread",
    "exif_orientation",
    "header",
    "list_images",
    "list_unread_images",
    "load_image",
    "opened",
    "parse_json",
    "read_bytes",
    "read_json",
    "read_npy",
    "read_npz",
    "read_text",
    "write_npz",
]
