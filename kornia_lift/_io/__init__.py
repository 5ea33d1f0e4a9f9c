"""Files in and out: images to tensors, bounded reading of files that may be damaged, atomic writing."""

from kornia_lift._io.decode import header, opened
from kornia_lift._io.images import (
    IMAGE_SUFFIXES,
    SUFFIXES,
    ImageFileError,
    describe_unread,
    list_images,
    list_unread_images,
    load_image,
    load_image_and_orientation,
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
    "header",
    "list_images",
    "list_unread_images",
    "load_image",
    "load_image_and_orientation",
    "opened",
    "parse_json",
    "read_bytes",
    "read_json",
    "read_npy",
    "read_npz",
    "read_text",
    "write_npz",
]
