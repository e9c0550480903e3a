#include "json.h"

#include <cctype>
#include <cstdio>

namespace onekv::runner {

std::string printable(std::string text) {
  for (char& c : text)
    if (c < 0x20 || c > 0x7e) c = std::isspace(static_cast<unsigned char>(c)) ? ' ' : '?';
  return text;
}

namespace {

std::string quoted(const std::string& value) {
  std::string out = "\"";
  for (const char c : printable(value)) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + '"';
}

std::string number(double value) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.9g", value);
  return buffer;
}

template <class Values, class Format>
std::string list(const Values& values, Format format) {
  std::string out = "[";
  for (size_t i = 0; i < values.size(); ++i) out += (i ? "," : "") + format(values[i]);
  return out + "]";
}

}  // namespace

void Line::key(const char* name) {
  if (!body_.empty()) body_ += ',';
  body_ += quoted(name) + ":";
}

Line& Line::raw(const char* name, const std::string& json) {
  key(name);
  body_ += json;
  return *this;
}

Line& Line::text(const char* name, const std::string& value) { return raw(name, quoted(value)); }

Line& Line::count(const char* name, int64_t value) {
  return raw(name, value < 0 ? "null" : std::to_string(value));
}

Line& Line::real(const char* name, double value) { return raw(name, number(value)); }

Line& Line::texts(const char* name, const std::vector<std::string>& values) {
  return raw(name, list(values, quoted));
}

Line& Line::counts(const char* name, const std::vector<int64_t>& values) {
  return raw(name, list(values, [](int64_t v) { return std::to_string(v); }));
}

Line& Line::reals(const char* name, const std::vector<double>& values) {
  return raw(name, list(values, number));
}

void Line::print() const {
  const std::string line = object() + "\n";
  std::fwrite(line.data(), 1, line.size(), stdout);
  std::fflush(stdout);
}

int fail(Kind kind, const std::string& message) {
  Line("error").text("kind", name(kind)).text("message", message).print();
  std::fprintf(stderr, "error: %s\n", printable(message).c_str());
  return kind == Kind::kUsage ? 2 : 1;
}

}  // namespace onekv::runner
