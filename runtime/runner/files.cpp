#include "files.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "failure.h"

namespace onekv::runner {

void check_file(const std::string& path) {
  struct stat status;
  if (stat(path.c_str(), &status) != 0 || access(path.c_str(), R_OK) != 0)
    throw Failure(Kind::kUsage, path + ": " + std::strerror(errno));
  if (!S_ISREG(status.st_mode)) throw Failure(Kind::kUsage, path + " is not a file");
}

}  // namespace onekv::runner
