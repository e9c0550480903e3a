#include "options.h"

#include <cerrno>
#include <cstdlib>
#include <functional>
#include <map>

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
    "  --at-phase-end CMD    run after each phase, with ONEKV_PID and ONEKV_PHASE set\n"
    "  --eos N,N             ids that end the decode; --ignore-eos: none does\n"
    "  --prepack             ONNX Runtime: weights in its own layout, in memory\n"
    "  --arena               ONNX Runtime: keep what a call needed for the next one\n";

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

// What a flag does with its value; a flag that takes none gets a null pointer.
struct Flag {
  bool takes_value;
  std::function<void(Options&, const char*)> apply;
};

Flag on(bool Options::* field, bool value) {
  return {false, [=](Options& options, const char*) { options.*field = value; }};
}

Flag text(std::string Options::* field) {
  return {true, [=](Options& options, const char* given) { options.*field = given; }};
}

Flag count(const char* name, int64_t Options::* field, int64_t least, int64_t most) {
  return {true, [=](Options& options, const char* given) {
            options.*field = number(name, given, least, most);
          }};
}

const std::map<std::string, Flag>& flags() {
  static const std::map<std::string, Flag> all = {
      {"--help", on(&Options::help, true)},
      {"-h", on(&Options::help, true)},
      {"--bandwidth", on(&Options::bandwidth, true)},
      {"--prompt", text(&Options::prompt)},
      {"--depth", count("--depth", &Options::depth, 0, kMostTokens)},
      {"--decode", count("--decode", &Options::decode, 0, kMostTokens)},
      {"--check", text(&Options::check)},
      {"--check-prompt", count("--check-prompt", &Options::check_prompt, 1, kMostTokens)},
      {"--operators",
       {true, [](Options& options, const char* path) { options.operators.push_back(path); }}},
      {"--runtime", text(&Options::runtime)},
      {"--expect-version", text(&Options::expect_version)},
      {"--context", count("--context", &Options::context, 1, kMostTokens)},
      {"--chunk", count("--chunk", &Options::chunk, 1, kMostTokens)},
      {"--threads", count("--threads", &Options::threads, 0, 1024)},
      {"--sample-ms", count("--sample-ms", &Options::sample_ms, 0, 1000)},
      {"--at-phase-end", text(&Options::at_phase_end)},
      {"--eos",
       {true, [](Options& options, const char* ids) { options.eos = parse_tokens(ids, "--eos"); }}},
      {"--ignore-eos", on(&Options::ignore_eos, true)},
      {"--prepack", on(&Options::prepack, true)},
      {"--arena", on(&Options::arena, true)},
  };
  return all;
}

void check_options(const Options& options) {
  if (options.help || options.bandwidth) return;
  if (options.model.empty()) throw Failure(Kind::kUsage, "no model given; --help tells how");
  if (options.prompt.empty()) throw Failure(Kind::kUsage, "no --prompt given");
  if (options.check.empty() != (options.check_prompt == 0))
    throw Failure(Kind::kUsage, "--check and --check-prompt go together");
}

}  // namespace

Options parse_options(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const auto found = flags().find(word);
    if (found != flags().end()) {
      const Flag& flag = found->second;
      if (flag.takes_value && ++i >= argc) throw Failure(Kind::kUsage, word + " needs a value");
      flag.apply(options, flag.takes_value ? argv[i] : nullptr);
    } else if (word.size() > 1 && word[0] == '-') {
      throw Failure(Kind::kUsage, "unknown option " + word + "; --help lists them");
    } else if (options.model.empty()) {
      options.model = word;
    } else {
      throw Failure(Kind::kUsage, "more than one model: " + options.model + " and " + word);
    }
  }
  check_options(options);
  return options;
}

}  // namespace onekv::runner
