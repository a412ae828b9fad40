#include "quant/export/export.h"

#include "base/error.h"
#include "base/file.h"
#include "quant/export/decoder_graph.h"
#include "quant/export/encodings.h"
#include "quant/export/onnx_graph.h"

namespace qeval::quant {
namespace {

ExportSummary write_graph(const model::Model& model, const Quantization& quantization, int64_t max_positions,
                          const std::string& version, PointForm form, const std::filesystem::path& folder) {
  ExportSummary summary;
  TensorFile tensors(folder / kOnnxTensorFile);
  OnnxGraph graph(tensors);
  add_decoder(graph, model, quantization, max_positions, form);
  graph.property("qeval.model", model.name);
  graph.property("qeval.weights", model.weight_hash());
  graph.property("qeval.quantization", quantization.hash);
  graph.property("qeval.max_positions", std::to_string(max_positions));
  const onnx::ModelProto proto = graph.take("decoder", version);
  std::string bytes;
  if (!proto.SerializeToString(&bytes)) {
    fail("{}: the graph exceeds the 2 GiB of a protobuf message", (folder / kOnnxFile).string());
  }
  tensors.commit();
  write_file_atomically(folder / kOnnxFile, bytes);
  summary.nodes = proto.graph().node_size();
  summary.bytes = tensors.bytes();
  for (const Point& point : all_points(model.config)) summary.points += needs_range(quantization.qcfg, point);
  return summary;
}

}  // namespace

ExportSummary export_onnx(const model::Model& model, const Quantization& quantization, int64_t max_positions,
                          const std::string& version, const std::filesystem::path& folder) {
  return write_graph(model, quantization, max_positions, version, PointForm::nodes, folder);
}

ExportSummary export_encodings(const model::Model& model, const Quantization& quantization,
                               int64_t max_positions, const std::string& version,
                               const std::filesystem::path& folder) {
  refuse_dynamic_points(quantization.qcfg, model.config);
  write_encodings(model, quantization, version, folder / kEncodingsFile);
  return write_graph(model, quantization, max_positions, version, PointForm::names, folder);
}

}  // namespace qeval::quant
