"""The safetensors format (huggingface.co/docs/safetensors): 8 bytes of a length, a JSON header of it, and the numbers.

Nothing in such a file can be executed. It is read and written here, so that it needs no package.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.files import write_atomically

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
LENGTH = 8  # bytes of the header's length, little-endian
ALIGNMENT = 8  # of the first number


def write(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Save tensors of any layout and device, and texts about them, atomically."""
    header: dict[str, Any] = {"__metadata__": metadata}
    parts, end = [], 0
    # The widest first, so that each number lies at a multiple of its size.
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])):
        raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        header[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [end, end := end + len(raw)],
        }
        parts.append(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    content = b"".join([len(text).to_bytes(LENGTH, "little"), text, *parts])
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def is_one(path: str | Path) -> bool:
    """Whether a file begins as one of this format does, and no other that is read here."""
    with open(path, "rb") as file:
        return file.read(LENGTH + 1)[LENGTH:] == b"{"


def read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file that may come from anyone, and its metadata. ValueError for what is no such file."""
    content = bytearray(Path(path).read_bytes())
    length = int.from_bytes(content[:LENGTH], "little")
    if length > len(content) - LENGTH:
        raise ValueError("the header is cut short")
    header = json.loads(content[LENGTH : LENGTH + length])
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError("the metadata is no text")
    numbers, tensors, end = memoryview(content)[LENGTH + length :], {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        dtype, shape, (first, last) = DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
        if not all(type(number) is int and number >= 0 for number in (*shape, first, last)):
            raise ValueError(f"{name}: its shape and place are not whole numbers")
        # Without gaps and overlaps, as the format demands: no few bytes stand for many numbers.
        if first != end or last > len(numbers) or last - first != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{name}: its numbers are not where they should be")
        tensors[name] = torch.frombuffer(bytearray(numbers[first:last]), dtype=dtype).reshape(shape)
        end = last
    if end != len(numbers):
        raise ValueError("more follows than the header names")
    return tensors, metadata
