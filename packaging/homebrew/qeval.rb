# brew install --build-from-source --HEAD packaging/homebrew/qeval.rb
class Qeval < Formula
  desc "What did quantization cost this language model?"
  license "Apache-2.0"
  # The checkout that this file lies in; a release adds its url and sha256.
  head "file://#{File.expand_path("../..", __dir__)}", using: :git

  depends_on "boost" => :build
  depends_on "cmake" => :build
  depends_on "cpp-httplib" => :build
  depends_on "eigen" => :build
  depends_on "ninja" => :build
  depends_on "nlohmann-json" => :build
  depends_on "onnx" => :build
  depends_on "pkgconf" => :build
  depends_on "fmt"
  depends_on :linux
  depends_on "openssl@3"
  depends_on "pcre2"
  depends_on "protobuf"
  depends_on "sentencepiece"
  depends_on "tbb"
  depends_on "utf8proc"

  def install
    system "cmake", "-S", ".", "-B", "build", "-G", "Ninja",
           "-DQEVAL_BUILD_TESTS=OFF", "-DQEVAL_BUILD_BENCH=OFF", *std_cmake_args
    system "cmake", "--build", "build"
    system "cmake", "--install", "build"
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/qeval --version") unless head?
    assert_match "sample_qa", shell_output("#{bin}/qeval tasks")
  end
end
