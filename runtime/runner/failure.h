// What can go wrong, named as in ErrorKind of bench/records.py.
#pragma once

#include <stdexcept>
#include <string>

namespace onekv::runner {

enum class Kind {
  kUsage,
  kCorruptFile,
  kVersionMismatch,
  kMissingOperator,
  kMissingLibrary,
  kContextFull,
  kRuntime,
  kOutOfMemory,
};

inline const char* name(Kind kind) {
  switch (kind) {
    case Kind::kUsage: return "usage";
    case Kind::kCorruptFile: return "corrupt-file";
    case Kind::kVersionMismatch: return "version-mismatch";
    case Kind::kMissingOperator: return "missing-operator";
    case Kind::kMissingLibrary: return "missing-library";
    case Kind::kContextFull: return "context-full";
    case Kind::kRuntime: return "runtime";
    case Kind::kOutOfMemory: return "out-of-memory";
  }
  return "runtime";
}

// Ends the run: one line of JSON, one on standard error, exit code 2 for a wrong call, else 1.
struct Failure : std::runtime_error {
  Failure(Kind kind, const std::string& message) : std::runtime_error(message), kind(kind) {}
  Kind kind;
};

}  // namespace onekv::runner
