// Token ids from a file: a JSON array, or numbers apart by blanks or commas.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace onekv::runner {

// Throws Failure(kUsage) that names `source` and the place of what is no id.
std::vector<int64_t> parse_tokens(const std::string& text, const std::string& source);

// Reads a file, or standard input for "-". Throws Failure(kUsage).
std::vector<int64_t> read_tokens(const std::string& path);

}  // namespace onekv::runner
