#pragma once

#include <string>

namespace onekv::runner {

// Throws Failure(kUsage) unless `path` is a file that can be read.
void check_file(const std::string& path);

}  // namespace onekv::runner
