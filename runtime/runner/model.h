// A loaded model, whatever the runtime. One of the *_model.cpp files implements it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "options.h"

namespace onekv::runner {

class Model {
 public:
  virtual ~Model() = default;

  virtual int64_t context() const = 0;       // tokens that the cache holds
  virtual int64_t largest_step() const = 0;  // tokens that one step takes at most
  virtual int64_t vocabulary() const = 0;
  virtual int64_t cache_bytes() const = 0;  // at the full context; -1: not told
  virtual std::vector<int64_t> eos() const = 0;

  // Appends `count` tokens at `position` and gives the logits [vocabulary] after the last,
  // which stay valid until the next step. The caller has checked room, count and ids.
  virtual const float* step(const int64_t* tokens, int64_t count, int64_t position) = 0;

  // Ends the life of those logits where they are memory of their own.
  virtual void release_logits() {}
};

struct RuntimeName {
  std::string name, version;
};

// Loads libraries, not the model. Throws Failure.
RuntimeName open_runtime(const Options& options);

// Throws Failure.
std::unique_ptr<Model> load_model(const Options& options);

}  // namespace onekv::runner
