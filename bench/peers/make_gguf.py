"""The same model as F16 and as Q8_0, as the peers' users have it.

usage: make_gguf.py MODEL.gguf FOLDER      writes FOLDER/f16.gguf and FOLDER/q8_0.gguf unless they are there
"""

import os
import sys

import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType, dequantize, quantize

FILE_TYPES = {Kind.F16: LlamaFileType.MOSTLY_F16, Kind.Q8_0: LlamaFileType.MOSTLY_Q8_0}


def write(reader, path, kind):
    part = path + ".part"
    writer = GGUFWriter(part, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        value, value_type = field.contents(), field.types[0]
        if name == "general.file_type":
            value = int(FILE_TYPES[kind])
        if value_type == GGUFValueType.ARRAY:
            writer.add_array(name, value)
        else:
            writer.add_key_value(name, value, value_type)
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if tensor.tensor_type == Kind.F32:
            writer.add_tensor(tensor.name, values)
        elif kind == Kind.F16:
            writer.add_tensor(tensor.name, values.astype(np.float16))
        else:
            writer.add_tensor(tensor.name, quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(part, path)


def main():
    source, folder = sys.argv[1:]
    reader = GGUFReader(source)
    for kind in FILE_TYPES:
        path = os.path.join(folder, kind.name.lower() + ".gguf")
        if not os.path.exists(path):
            write(reader, path, kind)


if __name__ == "__main__":
    main()
