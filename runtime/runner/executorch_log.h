// ExecuTorch tells causes only in its log, and ends the process where it finds itself wrong.
#pragma once

#include <string>

namespace onekv::runner {

// Takes over the runtime's log, and turns its aborts into an error line and exit code 1.
void listen_to_runtime();

// What it logged as errors since the last call, shortened.
std::string last_errors();

}  // namespace onekv::runner
