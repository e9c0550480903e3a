#include "memory.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

namespace onekv::runner {
namespace {

struct Field {
  const char* label;  // with its colon, as the line begins
  int64_t* bytes;
};

// Fills fields of lines such as "VmRSS:   1234 kB". No allocation: it must not disturb.
template <int N>
void read_fields(const char* path, const Field (&fields)[N]) {
  char text[8192];
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return;
  size_t size = 0;
  for (ssize_t got; size < sizeof text - 1; size += got) {
    got = read(file, text + size, sizeof text - 1 - size);
    if (got <= 0) break;
  }
  close(file);
  text[size] = '\0';
  for (const char* line = text; line != nullptr;) {
    for (const Field& field : fields) {
      const size_t length = std::strlen(field.label);
      if (std::strncmp(line, field.label, length) == 0)
        *field.bytes = std::strtoll(line + length, nullptr, 10) * 1024;
    }
    const char* end = std::strchr(line, '\n');
    line = end == nullptr ? nullptr : end + 1;
  }
}

}  // namespace

Counters read_counters() {
  Counters c;
  read_fields("/proc/self/status", {{"VmRSS:", &c.rss},
                                    {"RssAnon:", &c.anonymous},
                                    {"VmSwap:", &c.swap},
                                    {"VmHWM:", &c.high_water}});
  return c;
}

Split read_split() {
  Split s;
  read_fields("/proc/self/smaps_rollup", {{"Pss_Anon:", &s.pss_anon},
                                          {"Pss_File:", &s.pss_file},
                                          {"SwapPss:", &s.swap},
                                          {"Rss:", &s.rss}});
  return s;
}

bool reset_high_water() {
  const int file = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
  if (file < 0) return false;
  const bool done = write(file, "5", 1) == 1;
  close(file);
  return done;
}

}  // namespace onekv::runner
