#include "generate.h"

#include <algorithm>
#include <string>

#include "failure.h"

namespace onekv::runner {

void check_room(const Model& model, int64_t tokens) {
  if (tokens > model.context())
    throw Failure(Kind::kContextFull, std::to_string(tokens) +
                                          " tokens do not fit into a context of " +
                                          std::to_string(model.context()));
}

void check_ids(const Model& model, const std::vector<int64_t>& tokens) {
  for (const int64_t token : tokens)
    if (token >= model.vocabulary())
      throw Failure(Kind::kUsage, "token id " + std::to_string(token) + ": the vocabulary has " +
                                      std::to_string(model.vocabulary()));
}

int64_t greedy(const float* logits, int64_t vocabulary) {
  return std::max_element(logits, logits + vocabulary) - logits;
}

const float* prefill(Model& model, const std::vector<int64_t>& tokens, int64_t begin, int64_t end,
                     int64_t chunk) {
  const int64_t most = std::min(chunk, model.largest_step());
  const float* logits = nullptr;
  for (int64_t at = begin; at < end; at += most)
    logits = model.step(tokens.data() + at, std::min(most, end - at), at);
  return logits;
}

std::vector<int64_t> choices_along(Model& model, const std::vector<int64_t>& tokens, int64_t prompt,
                                   int64_t chunk) {
  const int64_t count = static_cast<int64_t>(tokens.size());
  std::vector<int64_t> chosen;
  const float* logits = prefill(model, tokens, 0, prompt, chunk);
  for (int64_t at = prompt; at < count; ++at) {
    chosen.push_back(greedy(logits, model.vocabulary()));
    if (at + 1 < count) logits = model.step(tokens.data() + at, 1, at);
  }
  return chosen;
}

}  // namespace onekv::runner
