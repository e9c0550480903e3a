#include "options.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "failure.h"
#include "tokens.h"

namespace onekv::runner {

const char* const kUsageText =
    "usage: onekv-runner MODEL --prompt FILE [options]\n"
    "       onekv-runner --bandwidth [--threads N]\n"
    "Prefills and decodes greedily; one JSON object a line on standard output.\n"
    "  --prompt FILE         token ids, as JSON or apart by blanks; - reads standard input\n"
    "  --depth N             the first N ids only fill the cache; their time is not counted\n"
    "  --decode N            new tokens (64)\n"
    "  --check FILE          ids of a prompt and its known continuation, fed after measuring\n"
    "  --check-prompt N      how many of them are the prompt\n"
    "  --operators LIB       library of operators to load first; may be repeated\n"
    "  --runtime LIB         libonnxruntime.so to load\n"
    "  --expect-version V    refuse a runtime of another version\n"
    "  --context N           cache length of a model that leaves it free\n"
    "  --chunk N             most tokens of one prefill step (256, less where the file says so)\n"
    "  --threads N           0: the runtime's choice\n"
    "  --sample-ms N         memory sampling interval (20); 0 turns it off\n"
    "  --eos N,N             ids that end the decode; --ignore-eos: none does\n"
    "  --prepack             ONNX Runtime: weights in its own layout, in memory\n"
    "  --no-arena            ONNX Runtime: give back what a call needed when it ends\n";

namespace {

int64_t number(const std::string& flag, const char* text, int64_t least, int64_t most) {
  char* end = nullptr;
  errno = 0;
  const long long value = std::strtoll(text, &end, 10);
  if (errno != 0 || end == text || *end != '\0' || value < least || value > most) {
    throw Failure(Kind::kUsage, flag + " " + text + ": not a number from " + std::to_string(least) +
                                    " to " + std::to_string(most));
  }
  return value;
}

constexpr int64_t kMostTokens = int64_t{1} << 30;

}  // namespace

Options parse_options(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    auto text = [&]() -> const char* {
      if (++i >= argc) throw Failure(Kind::kUsage, flag + " needs a value");
      return argv[i];
    };
    auto tokens = [&](int64_t least) { return number(flag, text(), least, kMostTokens); };
    if (flag == "--help" || flag == "-h") options.help = true;
    else if (flag == "--bandwidth") options.bandwidth = true;
    else if (flag == "--prompt") options.prompt = text();
    else if (flag == "--depth") options.depth = tokens(0);
    else if (flag == "--decode") options.decode = tokens(0);
    else if (flag == "--check") options.check = text();
    else if (flag == "--check-prompt") options.check_prompt = tokens(1);
    else if (flag == "--operators") options.operators.push_back(text());
    else if (flag == "--runtime") options.runtime = text();
    else if (flag == "--expect-version") options.expect_version = text();
    else if (flag == "--context") options.context = tokens(1);
    else if (flag == "--chunk") options.chunk = tokens(1);
    else if (flag == "--threads") options.threads = number(flag, text(), 0, 1024);
    else if (flag == "--sample-ms") options.sample_ms = number(flag, text(), 0, 1000);
    else if (flag == "--eos") options.eos = parse_tokens(text(), flag);
    else if (flag == "--ignore-eos") options.ignore_eos = true;
    else if (flag == "--prepack") options.prepack = true;
    else if (flag == "--no-arena") options.arena = false;
    else if (flag.size() > 1 && flag[0] == '-')
      throw Failure(Kind::kUsage, "unknown option " + flag + "; --help lists them");
    else if (options.model.empty()) options.model = flag;
    else throw Failure(Kind::kUsage, "more than one model: " + options.model + " and " + flag);
  }
  if (options.help || options.bandwidth) return options;
  if (options.model.empty()) throw Failure(Kind::kUsage, "no model given; --help tells how");
  if (options.prompt.empty()) throw Failure(Kind::kUsage, "no --prompt given");
  if (options.check.empty() != (options.check_prompt == 0))
    throw Failure(Kind::kUsage, "--check and --check-prompt go together");
  return options;
}

}  // namespace onekv::runner
