// The command line, read once.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace onekv::runner {

struct Options {
  std::string model;
  std::vector<std::string> operators;  // libraries of operators, loaded before the model
  std::string runtime;                 // path of libonnxruntime; unused with ExecuTorch
  std::string expect_version;          // the runtime's, else version-mismatch; empty: any
  std::string prompt;                  // file of token ids, "-" for standard input
  std::string check;                   // file of token ids: a prompt and its known continuation
  int64_t check_prompt = 0;            // how many tokens of it are the prompt
  int64_t depth = 0;                   // tokens of the prompt that only fill the cache
  int64_t decode = 64;                 // new tokens, the one after the prefill included
  int64_t context = 0;                 // cache length where the file leaves it free
  int64_t chunk = 256;                 // most tokens of one prefill step
  int64_t threads = 0;                 // 0: the runtime's own choice
  int64_t sample_ms = 20;              // 0: no sampling
  std::string at_phase_end;            // shell command after each phase; empty: none
  std::vector<int64_t> eos;            // ends the decode; with a .pte added to its own
  bool ignore_eos = false;
  bool prepack = false;    // ONNX Runtime: copy weights into its own layout
  bool arena = false;      // ONNX Runtime: keep what a call needed for the next one
  bool bandwidth = false;  // measure streaming reads instead of a model
  bool help = false;
};

// Throws Failure(kUsage).
Options parse_options(int argc, char** argv);

extern const char* const kUsageText;

}  // namespace onekv::runner
