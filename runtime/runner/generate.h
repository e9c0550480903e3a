// Prefill in chunks, and greedy decoding.
#pragma once

#include <cstdint>
#include <vector>

#include "model.h"

namespace onekv::runner {

// Throws Failure: kContextFull where tokens do not fit, kUsage for an id the model has not.
void check_room(const Model& model, int64_t tokens);
void check_ids(const Model& model, const std::vector<int64_t>& tokens);

// The likeliest token; the first of equals, as argmax elsewhere.
int64_t greedy(const float* logits, int64_t vocabulary);

// Appends tokens [begin, end) of `tokens` at position `begin`, at most `chunk` at a time.
// Gives the logits after the last.
const float* prefill(Model& model, const std::vector<int64_t>& tokens, int64_t begin, int64_t end,
                     int64_t chunk);

// Feeds a known text, prefill and then one by one, and gives the model's own choice after
// each token from the last of the prompt on.
std::vector<int64_t> choices_along(Model& model, const std::vector<int64_t>& tokens, int64_t prompt,
                                   int64_t chunk);

}  // namespace onekv::runner
