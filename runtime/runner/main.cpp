// Runs a model once and tells what it cost: see docs/runner.md.
#include <malloc.h>
#include <sys/types.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <new>
#include <thread>

#include "bandwidth.h"
#include "failure.h"
#include "generate.h"
#include "json.h"
#include "model.h"
#include "monitor.h"
#include "options.h"
#include "tokens.h"

namespace onekv::runner {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

struct Timings {
  double first_token = 0;
  std::vector<double> decode;
};

bool ends(const std::vector<int64_t>& eos, int64_t token) {
  for (const int64_t id : eos)
    if (id == token) return true;
  return false;
}

struct Request {
  std::vector<int64_t> prompt, check, eos;
};

Request read_request(const Options& options) {
  Request request;
  request.prompt = read_tokens(options.prompt);
  if (options.depth >= static_cast<int64_t>(request.prompt.size()))
    throw Failure(Kind::kUsage, "the prompt needs at least one token beyond the depth of " +
                                    std::to_string(options.depth));
  if (!options.check.empty()) request.check = read_tokens(options.check);
  if (options.check_prompt >= static_cast<int64_t>(request.check.size()) && !request.check.empty())
    throw Failure(Kind::kUsage, "--check holds no token beyond its prompt");
  return request;
}

void check_request(const Model& model, const Request& request, const Options& options) {
  check_ids(model, request.prompt);
  check_ids(model, request.check);
  // The last new token is chosen and never fed.
  const int64_t fed = std::max<int64_t>(options.decode - 1, 0);
  check_room(model, static_cast<int64_t>(request.prompt.size()) + fed);
  check_room(model, static_cast<int64_t>(request.check.size()));
}

void print_start(const RuntimeName& runtime, const Options& options) {
  Line("start")
      .text("version", ONEKV_VERSION)
      .text("runtime", runtime.name)
      .text("runtime_version", runtime.version)
      .texts("operators", options.operators)
      .count("pid", getpid())
      .count("cores", std::thread::hardware_concurrency())
      .print();
}

void print_model(const Model& model) {
  Line("model")
      .count("context", model.context())
      .count("largest_step", model.largest_step())
      .count("vocabulary", model.vocabulary())
      .count("cache_bytes", model.cache_bytes())
      .print();
}

// Decodes greedily from `logits`, the ones after the prompt.
std::vector<int64_t> decode(Model& model, const Request& request, const Options& options,
                            int64_t first, Timings& timings) {
  std::vector<int64_t> tokens;
  if (options.decode > 0) tokens.push_back(first);
  int64_t position = static_cast<int64_t>(request.prompt.size());
  while (static_cast<int64_t>(tokens.size()) < options.decode &&
         !ends(request.eos, tokens.back())) {
    const Clock::time_point begin = Clock::now();
    const float* logits = model.step(&tokens.back(), 1, position++);
    tokens.push_back(greedy(logits, model.vocabulary()));
    timings.decode.push_back(seconds_since(begin));
  }
  return tokens;
}

// Prints the phase's line; the command that follows is in no phase's time.
void end_phase(Monitor& monitor, const char* phase, const Options& options) {
  monitor.end(phase);
  if (options.at_phase_end.empty()) return;
  const std::string about = "ONEKV_PID=" + std::to_string(getpid()) + " ONEKV_PHASE=" + phase;
  if (std::system((about + "; " + options.at_phase_end).c_str()) != 0) {
    // A command that tells nothing costs its own figure, not the run's.
  }
}

void run(const Options& options) {
  Request request = read_request(options);
  print_start(open_runtime(options), options);
  Monitor monitor(options.sample_ms);
  monitor.begin(true);
  end_phase(monitor, "baseline", options);

  monitor.begin(false);
  std::unique_ptr<Model> model = load_model(options);
  end_phase(monitor, "loaded", options);
  print_model(*model);
  check_request(*model, request, options);
  if (!options.ignore_eos) {
    request.eos = model->eos();
    request.eos.insert(request.eos.end(), options.eos.begin(), options.eos.end());
  }

  Timings timings;
  const int64_t prompt = static_cast<int64_t>(request.prompt.size());
  monitor.begin(true);
  prefill(*model, request.prompt, 0, options.depth, options.chunk);
  const Clock::time_point begin = Clock::now();
  const float* logits = prefill(*model, request.prompt, options.depth, prompt, options.chunk);
  const int64_t first = greedy(logits, model->vocabulary());
  timings.first_token = seconds_since(begin);
  end_phase(monitor, "prefill", options);
  // Not to be counted as the decode's.
  model->release_logits();

  monitor.begin(true);
  const std::vector<int64_t> tokens = decode(*model, request, options, first, timings);
  end_phase(monitor, "decode", options);
  Line("speed")
      .real("ttft", timings.first_token)
      .count("prompt_tokens", prompt - options.depth)
      .reals("decode_seconds", timings.decode)
      .print();
  Line("tokens").counts("tokens", tokens).print();

  if (!request.check.empty())
    Line("check")
        .counts("chosen", choices_along(*model, request.check, options.check_prompt, options.chunk))
        .print();
  model.reset();
  monitor.begin(false);
  end_phase(monitor, "after", options);
  Line("end").print();
}

int guarded(int argc, char** argv) {
  try {
    const Options options = parse_options(argc, argv);
    if (options.help) {
      std::fputs(kUsageText, stdout);
    } else if (options.bandwidth) {
      Line("bandwidth").real("stream_read_gb_s", streaming_read(options.threads)).print();
    } else {
      run(options);
    }
    return 0;
  } catch (const Failure& failure) {
    return fail(failure.kind, failure.what());
  } catch (const std::bad_alloc&) {
    return fail(Kind::kOutOfMemory, "memory could not be allocated");
  } catch (const std::exception& error) {
    return fail(Kind::kRuntime, error.what());
  }
}

}  // namespace
}  // namespace onekv::runner

int main(int argc, char** argv) {
#ifdef __GLIBC__
  // Left to itself, it keeps what a large prefill gave back. From this size on, Android's own
  // allocator maps each block by itself, too.
  mallopt(M_MMAP_THRESHOLD, 64 << 10);
  mallopt(M_TRIM_THRESHOLD, 64 << 10);
#endif
  return onekv::runner::guarded(argc, argv);
}
