#include "tokens.h"

#include <cctype>
#include <fstream>
#include <iostream>
#include <iterator>

#include "failure.h"
#include "files.h"

namespace onekv::runner {

std::vector<int64_t> parse_tokens(const std::string& text, const std::string& source) {
  // Ids are far below this; it keeps the sum below from overflowing.
  constexpr int64_t kLargest = int64_t{1} << 31;
  std::vector<int64_t> tokens;
  for (size_t i = 0; i < text.size();) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    if (std::isspace(c) || c == ',' || c == '[' || c == ']') {
      ++i;
      continue;
    }
    int64_t value = 0;
    const size_t start = i;
    for (; i < text.size() && std::isdigit(static_cast<unsigned char>(text[i])); ++i) {
      value = value * 10 + (text[i] - '0');
      if (value > kLargest) break;
    }
    if (i == start || value > kLargest)
      throw Failure(Kind::kUsage, source + ": byte " + std::to_string(start) + " is no token id");
    tokens.push_back(value);
  }
  return tokens;
}

std::vector<int64_t> read_tokens(const std::string& path) {
  if (path == "-") {
    return parse_tokens({std::istreambuf_iterator<char>(std::cin), {}}, "standard input");
  }
  check_file(path);
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  return parse_tokens(text, path);
}

}  // namespace onekv::runner
