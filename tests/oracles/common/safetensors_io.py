"""Reads and writes .safetensors files with NumPy alone; Debian has no package for them.

u64 little-endian length, that many bytes of JSON {name: {dtype, shape, data_offsets}}, then the data.
"""
import json
import struct

import numpy as np

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1",
          "BOOL": "?"}
NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}


def load(path):
    """{name: array} and the metadata {key: text}."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = file.read()
    metadata = header.pop("__metadata__", {})
    arrays = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        arrays[name] = np.frombuffer(data[begin:end], DTYPES[entry["dtype"]]).reshape(entry["shape"]).copy()
    return arrays, metadata


def save(path, arrays, metadata=None):
    """What PyTorch users' `safetensors.torch.save_file` writes."""
    header = {"__metadata__": metadata} if metadata else {}
    blobs, offset = [], 0
    for name, array in arrays.items():
        blob = np.ascontiguousarray(array).tobytes()
        header[name] = {"dtype": NAMES[array.dtype], "shape": list(array.shape),
                        "data_offsets": [offset, offset + len(blob)]}
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))
