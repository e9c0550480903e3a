// Lines of JSON on standard output, each flushed: what was measured survives what comes after.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "failure.h"

namespace onekv::runner {

// Messages of other libraries are in no known encoding: only printable ASCII leaves this program.
std::string printable(std::string text);

// One object, built field by field. A negative count is something unknown: null.
class Line {
 public:
  explicit Line(const char* event) { text("event", event); }

  Line& text(const char* key, const std::string& value);
  Line& texts(const char* key, const std::vector<std::string>& values);
  Line& count(const char* key, int64_t value);
  Line& real(const char* key, double value);
  Line& counts(const char* key, const std::vector<int64_t>& values);
  Line& reals(const char* key, const std::vector<double>& values);
  Line& raw(const char* key, const std::string& json);

  std::string object() const { return "{" + body_ + "}"; }
  void print() const;

  // An object without an event, for use as a value.
  static Line part() { return Line(); }

 private:
  Line() = default;
  void key(const char* name);
  std::string body_;
};

// Tells a failure on standard output and, for people, on standard error; gives the exit code.
int fail(Kind kind, const std::string& message);

}  // namespace onekv::runner
