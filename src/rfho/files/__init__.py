"""Files: reading what strangers wrote, and writing what has to survive.

Whatever comes from a disk may be cut off, mixed up or made to do harm. Nothing is unpacked before its size
is known, no name leads out of its folder, every value is compared with a schema, nothing is ever unpickled;
and what is wrong is one `DataFormatError`. What is written is whole or not there at all.
"""

from rfho.files.arrays import Array, read_all_arrays, read_arrays, read_shapes
from rfho.files.budget import Planned, as_bytes, free_on_disk, refuse_what_has_no_room, size_of
from rfho.files.durable import (
    PARTIAL,
    append_line,
    make_folder,
    naming,
    overwrite,
    remove_partial,
    sync_file,
    sync_folder,
    write_file,
)
from rfho.files.packed import read_bytes, tar_members, unpacked, zipped
from rfho.files.paths import inside
from rfho.files.refusal import MOST_BYTES, damaged, parsing, readable
from rfho.files.schema import from_json, read_json

__all__ = [
    "MOST_BYTES",
    "PARTIAL",
    "Array",
    "Planned",
    "append_line",
    "as_bytes",
    "damaged",
    "free_on_disk",
    "from_json",
    "inside",
    "make_folder",
    "naming",
    "overwrite",
    "parsing",
    "read_all_arrays",
    "read_arrays",
    "read_bytes",
    "read_json",
    "read_shapes",
    "readable",
    "refuse_what_has_no_room",
    "remove_partial",
    "size_of",
    "sync_file",
    "sync_folder",
    "tar_members",
    "unpacked",
    "write_file",
    "zipped",
]
