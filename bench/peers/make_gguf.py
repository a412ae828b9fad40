"""The same model in types as the peers' users have it.

usage: make_gguf.py MODEL.gguf FOLDER      writes FOLDER/f16.gguf, q8_0.gguf, q4_0.gguf and q4_k_m.gguf unless they
are there, the last two by llama.cpp's own quantizer
"""

import ctypes
import os
import sys

import llama_cpp
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


def quantize_by_llama(source, path, file_type):
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = file_type
    part = path + ".part"
    if llama_cpp.llama_model_quantize(source.encode(), part.encode(), ctypes.byref(parameters)) != 0:
        sys.exit(f"make_gguf.py: {source} cannot be quantized")
    os.replace(part, path)


def main():
    source, folder = sys.argv[1:]
    reader = GGUFReader(source)
    for kind in FILE_TYPES:
        path = os.path.join(folder, kind.name.lower() + ".gguf")
        if not os.path.exists(path):
            write(reader, path, kind)
    for name, file_type in (("q4_0", llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0), ("q4_k_m", llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M)):
        path = os.path.join(folder, name + ".gguf")
        if not os.path.exists(path):
            quantize_by_llama(os.path.join(folder, "f16.gguf"), path, file_type)


if __name__ == "__main__":
    main()
